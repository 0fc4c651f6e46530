"""Static quantisation to int8 of a graph's convolutions, in the QDQ form, by channel.

The weights take 7 bits, so that processors without VNNI give the same answers; see "When to use
reduce-range and per-channel quantization" on onnxruntime's page.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from jemtrack.deploy.predict import INPUT, TEMPERATURE, THRESHOLD

_PER_PASS = 64


class CalibrationImages(CalibrationDataReader):  # type: ignore[misc]
    """Hands the calibration its batches, and the other inputs with each."""

    def __init__(self, images_NCHW: np.ndarray) -> None:
        self._batches: Iterator[np.ndarray] = (
            images_NCHW[start : start + _PER_PASS]
            for start in range(0, len(images_NCHW), _PER_PASS)
        )

    def get_next(self) -> dict[str, Any] | None:
        """Return the inputs of the next batch; None if there is none."""
        batch = next(self._batches, None)
        one = np.ones((), np.float32)
        return None if batch is None else {INPUT: batch, TEMPERATURE: one, THRESHOLD: one}


def quantised(proto: onnx.ModelProto, images_NCHW: np.ndarray) -> onnx.ModelProto:
    """Quantise the convolutions, whose ranges are those that uint8 images (N, C, H, W) show.

    The heads and the scores stay in float32: quantised, they would move log p~(x) several times
    as far, for no time.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain, prepared, found = (Path(folder, name) for name in ("a.onnx", "b.onnx", "c.onnx"))
        onnx.save(proto, plain)
        quant_pre_process(plain, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            found,
            CalibrationImages(images_NCHW),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            # Without VNNI, a processor adds two products in 16 bits: of 8-bit weights it cuts off
            # sums, and a bundle would answer otherwise there than where it was measured.
            reduce_range=True,
        )
        return onnx.load(found)
