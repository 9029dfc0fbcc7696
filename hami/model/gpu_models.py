"""Public properties of GPU models, for machines that are described rather than found.

Memory is what the driver reports, in MiB. A real device always says its own numbers; these serve simulation only.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuModel:
    """One product."""

    name: str
    memory_mib: int
    sm_count: int
    capability: tuple[int, int]
    pci_device: int
    """PCI device id; the vendor's is 0x10de."""
    mig: bool = False
    nvlinks: int = 0
    """Links to an NVSwitch on machines that have one."""
    bus_width: int
    """Bits of the memory bus."""
    sm_clock_mhz: int
    memory_clock_mhz: int
    power_w: int


def _model(
    name: str,
    memory_mib: int,
    sm_count: int,
    capability: tuple[int, int],
    pci_device: int,
    shape: tuple[bool, int, int],
    clocks: tuple[int, int],
    power_w: int,
) -> GpuModel:
    mig, nvlinks, bus_width = shape
    return GpuModel(
        name=name, memory_mib=memory_mib, sm_count=sm_count, capability=capability, pci_device=pci_device, mig=mig,
        nvlinks=nvlinks, bus_width=bus_width, sm_clock_mhz=clocks[0], memory_clock_mhz=clocks[1], power_w=power_w,
    )  # fmt: skip


MODELS: tuple[GpuModel, ...] = (
    # name, MiB, SMs, capability, PCI id, (MIG, links, bus), (SM MHz, memory MHz), W
    _model("Tesla V100-SXM2-16GB", 16384, 80, (7, 0), 0x1DB1, (False, 6, 4096), (1530, 877), 300),
    _model("Tesla V100-SXM2-32GB", 32768, 80, (7, 0), 0x1DB5, (False, 6, 4096), (1530, 877), 300),
    _model("Tesla T4", 15360, 40, (7, 5), 0x1EB8, (False, 0, 256), (1590, 5001), 70),
    _model("NVIDIA A100-SXM4-40GB", 40960, 108, (8, 0), 0x20B0, (True, 12, 5120), (1410, 1215), 400),
    _model("NVIDIA A100-SXM4-80GB", 81920, 108, (8, 0), 0x20B2, (True, 12, 5120), (1410, 1593), 400),
    _model("NVIDIA A100-PCIE-40GB", 40960, 108, (8, 0), 0x20F1, (True, 0, 5120), (1410, 1215), 250),
    _model("NVIDIA A100 80GB PCIe", 81920, 108, (8, 0), 0x20B5, (True, 0, 5120), (1410, 1512), 300),
    _model("NVIDIA A30", 24576, 56, (8, 0), 0x20B7, (True, 0, 3072), (1440, 1215), 165),
    _model("NVIDIA A10", 23028, 72, (8, 6), 0x2236, (False, 0, 384), (1695, 6251), 150),
    _model("NVIDIA A40", 46068, 84, (8, 6), 0x2235, (False, 0, 384), (1740, 7251), 300),
    _model("NVIDIA GeForce RTX 3090", 24576, 82, (8, 6), 0x2204, (False, 0, 384), (2100, 9751), 350),
    _model("NVIDIA GeForce RTX 4090", 24564, 128, (8, 9), 0x2684, (False, 0, 384), (3105, 10501), 450),
    _model("NVIDIA L4", 23034, 58, (8, 9), 0x27B8, (False, 0, 192), (2040, 6251), 72),
    _model("NVIDIA L40S", 46068, 142, (8, 9), 0x26B9, (False, 0, 384), (2520, 9001), 350),
    _model("NVIDIA H100 80GB HBM3", 81559, 132, (9, 0), 0x2330, (True, 18, 5120), (1980, 2619), 700),
    _model("NVIDIA H100 PCIe", 81559, 114, (9, 0), 0x2331, (True, 0, 5120), (1755, 1593), 350),
    _model("NVIDIA H100 NVL", 95830, 132, (9, 0), 0x2321, (True, 0, 6016), (1785, 2619), 400),
    _model("NVIDIA H20", 97871, 78, (9, 0), 0x2329, (True, 18, 6144), (1980, 2619), 500),
    _model("NVIDIA H200", 143771, 132, (9, 0), 0x2335, (True, 18, 6144), (1980, 3201), 700),
    _model("NVIDIA B200", 183359, 148, (10, 0), 0x2901, (True, 18, 7680), (1965, 3996), 1000),
    _model(
        "NVIDIA RTX PRO 6000 Blackwell Server Edition", 97887, 188, (12, 0), 0x2BB5, (True, 0, 512), (2430, 12481), 600
    ),
)

BY_NAME = {model.name: model for model in MODELS}
