export PYTHONPATH=/tmp/w/recall-land/sdk:/tmp/w/recall-land/services:/tmp/w/recall-land/registry:/tmp/w/recall-land/embedding_store:/tmp/w/recall-land/workers:/tmp/w/recall-land/modeling:/tmp/w/recall-land
export PATH=/work/main/.venv/bin:$PATH
cd /tmp/w/recall-land
