# SPDX-License-Identifier: Apache-2.0
"""Array types whose shape is part of the annotation: `Float64[np.ndarray, "T L 4 4"]`.

jaxtyping is a test-time tool: Kit has none. Where nothing has loaded it yet (its pytest plugin does), the names evaluate to
`np.ndarray` and cost nothing; it would bring asyncio, ssl and unittest into every command.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    # To a type checker the shape is a note on the plain array type.
    from typing import Annotated as Bool
    from typing import Annotated as Float
    from typing import Annotated as Float32
    from typing import Annotated as Float64
    from typing import Annotated as Int
    from typing import Annotated as Int16
    from typing import Annotated as UInt8
    from typing import Annotated as UInt16
elif "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Float64, Int, Int16, UInt8, UInt16
else:

    class _Free:
        """Stands in for a jaxtyping dtype: subscripting gives the plain array type."""

        def __class_getitem__(cls, item: Any) -> type:
            return np.ndarray

    Bool = Float = Float32 = Float64 = Int = Int16 = UInt8 = UInt16 = _Free

__all__ = ["Bool", "Float", "Float32", "Float64", "Int", "Int16", "UInt8", "UInt16"]
