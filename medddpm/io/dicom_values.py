"""Values of a header: one reader of numbers, one of words, one of times.

A header can hold anything: no number, two where one belongs, bytes. Messages name the attribute
and never its value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag

from medddpm.errors import DicomSeriesError

_MOST = 1e12
"""No quantity of an image is larger; products of two stay finite in float32."""
_MODALITIES = re.compile(
    r"AR|AU|BI|BMD|CR|CT|DG|DX|ECG|EPS|ES|GM|HD|IO|IVOCT|IVUS|KO|LS|MG|MR|NM|OAM|OCT|"
    r"OP|OPM|OPT|OPV|OT|PR|PT|PX|REG|RF|RG|RTDOSE|RTIMAGE|RTPLAN|RTSTRUCT|SC|SEG|SM|SR|"
    r"TG|US|VA|XA|XC"
)
_TIME = re.compile(r"(\d\d)(\d\d)?(\d\d)?(\.\d{1,6})?")


def value_of(item: Dataset, keyword: str | int) -> Any:
    """The value of an attribute; None if it is absent, empty or cannot be read at all.

    Args:
        item: A data set.
        keyword: Of the attribute; a tag gives the whole element.
    """
    try:
        value = item.get(keyword)
    except Exception:  # what is no value of its kind makes pydicom raise anything
        return None
    return None if value is None or _is_empty(value) else value


def sound_element(item: Dataset, tag: BaseTag) -> DataElement | None:
    """An attribute as the dictionary wants it; None if it is of another VR or cannot be read."""
    try:
        element = item[tag]
        wanted = dictionary_VR(tag).split(" or ")
        DataElement(tag, element.VR, element.value)
    except Exception:  # damage makes pydicom raise anything; KeyError: absent or unknown
        return None
    return element if element.VR in wanted else None


def words(item: Dataset, keyword: str) -> list[str]:
    """The values of a text attribute; one value is a list of one, not a list of letters."""
    value = value_of(item, keyword)
    if value is None:
        return []
    values = value if isinstance(value, MultiValue | list | tuple) else [value]
    return [str(v).strip() for v in values]


def text(item: Dataset, keyword: str) -> str:
    """The value of a text attribute, "" if there is none."""
    value = value_of(item, keyword)
    return "" if value is None else str(value).strip()


def numbers(item: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers; None if the attribute is absent or empty.

    Raises:
        DicomSeriesError: Other values, more or fewer.
    """
    try:
        value: Any = item.get(keyword)
        if value is None or _is_empty(value):
            return None
        many = isinstance(value, Iterable) and not isinstance(value, str | bytes)
        found = tuple(float(v) for v in (value if many else [value]))
    except Exception:
        found = ()
    if len(found) == count and all(math.isfinite(v) and abs(v) < _MOST for v in found):
        return found
    wanted = "one number" if count == 1 else f"{count} numbers"
    raise DicomSeriesError(f"{keyword} is not {wanted}; repair the header or export it again")


def number(item: Dataset, keyword: str) -> float | None:
    """One finite number; None if the attribute is absent or empty, an error if it is no number."""
    found = numbers(item, keyword, 1)
    return None if found is None else found[0]


def number_or(item: Dataset, keyword: str, default: float) -> float:
    """One finite number, or the default where there is none: for what decides nothing."""
    try:
        found = number(item, keyword)
    except DicomSeriesError:
        found = None
    return default if found is None else found


def whole(item: Dataset, keyword: str, default: int = 0) -> int:
    """One whole number; the default if the attribute is absent or empty.

    Raises:
        DicomSeriesError: It is no whole number.
    """
    found = number(item, keyword)
    if found is not None and found != int(found):
        raise DicomSeriesError(f"{keyword} is no whole number; repair the header")
    return default if found is None else int(found)


def clock(item: Dataset, day: str, time: str) -> float:
    """Seconds that order two moments, from a date (DA) and a time (TM); 0 if the time is unknown.

    Args:
        item: A data set.
        day: Keyword of the date; may be absent from the data set.
        time: Keyword of the time, or of both in one (DT).
    """
    told, on = text(item, time).replace(":", ""), text(item, day).replace(".", "")
    if re.match(r"\d{14}", told):
        on, told = told[:8], re.sub(r"[+-].*", "", told[8:])
    found = _TIME.fullmatch(told)
    if not found:
        return 0.0
    hours, minutes, seconds, part = (float(v or 0) for v in found.groups())
    return _day(on) * 86400.0 + 3600 * hours + 60 * minutes + seconds + part


def modality_of(item: Dataset) -> str:
    """A defined term of Modality (PS3.3 C.7.3.1.1.1), "" if there is none, else "other"."""
    told = text(item, "Modality")
    return told if not told or _MODALITIES.fullmatch(told) else "other"


def _day(told: str) -> int:
    try:
        return date(int(told[:4]), int(told[4:6]), int(told[6:8])).toordinal()
    except ValueError:
        return 0


def _is_empty(value: Any) -> bool:
    return isinstance(value, str | bytes | MultiValue | list | tuple) and len(value) == 0
