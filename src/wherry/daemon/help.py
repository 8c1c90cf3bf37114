"""The daemon's --help."""

from wherry.daemon.options import OPTIONS, Option


def help_text() -> str:
    """Every option with its default, as dockerd shows them."""
    width = max(len(_usage(option)) for option in OPTIONS) + 3
    lines = ["Usage:  wherry daemon [OPTIONS]", "", "Container engine that speaks Docker's API.", "", "Options:"]
    for option in OPTIONS:
        default = f" (default {option.default})" if option.default else ""
        lines.append(f"{_usage(option):<{width}}{option.help}{default}")
    return "\n".join(lines)


def _usage(option: Option) -> str:
    short = f"-{option.short}, " if option.short else "    "
    kind = "" if option.kind == "bool" else f" {option.kind}"
    return f"  {short}--{option.flag}{kind}"
