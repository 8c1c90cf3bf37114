"""Our own client, driven as the docker client is, so that one test can be given either."""

import sys
from pathlib import Path

from cli_process import COMMAND

from engine_client import DockerCli


class Wherry(DockerCli):
    """The wherry command; its configuration is kept in `config`."""

    def __init__(self, host: str, config: Path) -> None:
        launcher = config / "wherry"
        launcher.write_text(f"#!{sys.executable} -IS\n{COMMAND[-1]}\n")
        launcher.chmod(0o755)
        super().__init__(str(launcher), host, config)
