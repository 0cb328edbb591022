"""The routes that people and jobs call, one module for each noun."""
