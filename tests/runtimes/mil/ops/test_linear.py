"""Matrix products are NumPy's, attention is PyTorch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape, np.float32)


WEIGHT, BIAS = numbers(5, 4), numbers(5)
QUERY, KEY, VALUE = numbers(2, 3, 5, 4), numbers(2, 3, 6, 4), numbers(2, 3, 6, 7)
MASK = numbers(5, 6)


def product(x: np.ndarray, y: np.ndarray, expected: Any = torch.matmul, **transposed: bool) -> tuple[Any, ...]:
    return lambda mb, x, y: mb.matmul(x=x, y=y, **transposed), expected, x, y


def attention(expected: Any, mask: Any = None) -> tuple[Any, ...]:
    """mask(mb, numbers): the mask made of them; None for attention without one."""

    def build(mb: Any, query: Any, key: Any, value: Any, numbers: Any) -> Any:
        masked = {"attn_mask": mask(mb, numbers)} if mask else {}
        return mb.scaled_dot_product_attention(query=query, key=key, value=value, **masked)

    return build, expected, QUERY, KEY, VALUE, MASK


CASES = {
    "linear": (
        lambda mb, x: mb.linear(x=x, weight=WEIGHT),
        lambda x: F.linear(x, torch.from_numpy(WEIGHT)),
        numbers(3, 4),
    ),
    "linear: bias": (
        lambda mb, x: mb.linear(x=x, weight=WEIGHT, bias=BIAS),
        lambda x: F.linear(x, torch.from_numpy(WEIGHT), torch.from_numpy(BIAS)),
        numbers(2, 3, 4),
    ),
    "linear: a vector": (
        lambda mb, x: mb.linear(x=x, weight=WEIGHT),
        lambda x: F.linear(x, torch.from_numpy(WEIGHT)),
        numbers(4),
    ),
    "matmul": product(numbers(3, 4), numbers(4, 5)),
    "matmul: batches": product(numbers(2, 1, 3, 4), numbers(5, 4, 6)),
    "matmul: transposed": product(
        numbers(2, 4, 3), numbers(2, 5, 4), lambda x, y: x.mT @ y.mT, transpose_x=True, transpose_y=True
    ),
    "matmul: a row": product(numbers(4), numbers(4, 5)),
    "matmul: a transposed right side": product(numbers(3, 4), numbers(5, 4), lambda x, y: x @ y.mT, transpose_y=True),
    "scaled_dot_product_attention": attention(lambda q, k, v, _: F.scaled_dot_product_attention(q, k, v)),
    "scaled_dot_product_attention: numbers as mask": attention(
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask), lambda _, mask: mask
    ),
    "scaled_dot_product_attention: truth values as mask": attention(
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, mask > -0.5),
        lambda mb, mask: mb.greater(x=mask, y=np.float32(-0.5)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_definition(case: str, check_case: Any) -> None:
    check_case(case)
