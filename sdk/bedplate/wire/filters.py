"""Filters of searches, by the attributes of the rows."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Self

from pydantic import Field, StrictBool, StrictInt, StrictStr, model_validator

from bedplate.wire.common import WireModel

# JSON has no infinity: it would be sent as null, which is no condition at all.
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Value = StrictBool | StrictInt | Number | StrictStr
_DEPTH_MAX = 8


class Filter(WireModel):
    """Either conditions on one ``attribute``, all of which must hold, or one of ``all``, ``any``, ``not``.

    For lists, ``equals`` and ``any_of`` ask whether one of the list's values is among those given. What is
    null matches nothing, under ``not`` neither.
    """

    attribute: str | None = Field(default=None, min_length=1, max_length=64, examples=["year"])
    equals: Value | None = None
    any_of: tuple[Value, ...] | None = Field(default=None, min_length=1, max_length=1000)
    at_least: Value | None = None
    at_most: Value | None = None
    all: tuple[Filter, ...] | None = Field(default=None, min_length=1, max_length=64)
    any: tuple[Filter, ...] | None = Field(default=None, min_length=1, max_length=64)
    not_: Filter | None = Field(default=None, alias="not")

    @cached_property
    def text(self) -> str:
        """As JSON, the same for the same filter. To Python 1, 1.0 and true are equal, here they are not."""
        return self.model_dump_json(by_alias=True, exclude_none=True)

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        conditions = (self.equals, self.any_of, self.at_least, self.at_most)
        forms = (self.attribute, self.all, self.any, self.not_)
        if sum(form is not None for form in forms) != 1:
            raise ValueError("a filter has exactly one of attribute, all, any and not")
        if (self.attribute is not None) != any(one is not None for one in conditions):
            raise ValueError("an attribute goes with at least one of equals, any_of, at_least and at_most")
        if self._depth() > _DEPTH_MAX:
            raise ValueError(f"filters nest at most {_DEPTH_MAX} deep")
        return self

    def _depth(self) -> int:
        inner = [*(self.all or ()), *(self.any or ()), *((self.not_,) if self.not_ else ())]
        return 1 + max((one._depth() for one in inner), default=0)
