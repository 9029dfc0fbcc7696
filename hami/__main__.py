"""The programs on PATH: `hami`, and the three names under which HAMi's images start its parts."""

import sys

from hami.cli.app import run


def main() -> None:
    """`hami SUB-COMMAND ...`"""
    run(sys.argv[1:])


def scheduler() -> None:
    """`scheduler ...` = `hami scheduler ...`"""
    run(["scheduler", *sys.argv[1:]])


def device_plugin() -> None:
    """`nvidia-device-plugin ...` = `hami agent --role plugin ...`"""
    run(["agent", "--role", "plugin", *sys.argv[1:]])


def monitor() -> None:
    """`vGPUmonitor ...` = `hami agent --role monitor ...`"""
    run(["agent", "--role", "monitor", *sys.argv[1:]])


if __name__ == "__main__":
    main()
