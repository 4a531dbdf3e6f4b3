"""The networks that pretraining and finetuning share."""

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from pri3d.config.section import Section

Network2d = Annotated[
    Literal["resnet18", "resnet34", "resnet50", "resnet18_half"],
    Field(
        description="encoder of the 2D network; resnet18_half has half the channels of resnet18, "
        "for CPUs (paper: resnet50 and resnet18)"
    ),
]

_WIDTHS_34C = [32, 64, 128, 256, 256, 128, 96, 96]
_BLOCKS_34 = [2, 3, 4, 6, 2, 2, 2, 2]
# Published sparse UNets by name (MinkowskiEngine's examples, PointContrast).
NAMED_3D: dict[str, dict[str, Any]] = {
    "minkunet14a": {
        "widths": [32, 64, 128, 256, 128, 128, 96, 96],
        "blocks": [1, 1, 1, 1, 1, 1, 1, 1],
    },
    "minkunet18a": {
        "widths": [32, 64, 128, 256, 128, 128, 96, 96],
        "blocks": [2, 2, 2, 2, 2, 2, 2, 2],
    },
    "minkunet34c": {"widths": _WIDTHS_34C, "blocks": _BLOCKS_34},
    "res16unet34c": {
        "widths": _WIDTHS_34C,
        "blocks": _BLOCKS_34,
        "stem_kernel": 3,
        "channels": 32,
    },
}


class Network3d(Section):
    """The sparse 3D UNet: a name of NAMED_3D, or explicit numbers."""

    widths: list[Annotated[int, Field(ge=1)]] = Field(
        _WIDTHS_34C,
        min_length=8,
        max_length=8,
        description="channels of the eight stages (paper: 32 64 128 256 256 128 96 96)",
    )
    blocks: list[Annotated[int, Field(ge=1)]] = Field(
        _BLOCKS_34,
        min_length=8,
        max_length=8,
        description="residual blocks of the eight stages (paper: 2 3 4 6 2 2 2 2)",
    )
    stem_kernel: Literal[3, 5] = Field(
        5, description="kernel size of the first convolution (paper: 5; PointContrast: 3)"
    )
    channels: int = Field(
        96,
        ge=1,
        description="output channels in pretraining (paper: 96; PointContrast: 32)",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_a_name(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value not in NAMED_3D:
            raise ValueError(
                f"no 3D network is named {value}; known: {', '.join(NAMED_3D)}, or give widths, "
                "blocks, stem_kernel and channels"
            )
        return NAMED_3D[value]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        numbers = handler.resolve_ref_schema(handler(core_schema))
        return {"anyOf": [{"enum": list(NAMED_3D)}, numbers]}
