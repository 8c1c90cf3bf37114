"""What a log driver may be told: names and values, checked before anything is made."""

from wherry.errors import Unimplemented

DRIVERS = ("json-file", "local", "none")


def check_options(driver, options):  # type: ignore
    from wherry.logs.rotation import rotation

    if driver not in DRIVERS:
        raise Unimplemented(driver)
    if driver != "none":
        rotation(driver, options)
