"""Docker's legacy plugins: processes that serve JSON over HTTP and are found by files that carry their names.

    address = discover("flocker")                       # NotFound: plugin "flocker" not found
    plugin = activate(address, "VolumeDriver")          # the handshake, retried while the plugin starts
    answer = plugin.call("VolumeDriver.Create", {"Name": "x"})      # or: await plugin.call_async(...)
    with plugin.stream("LogDriver.ReadLogs", {...}) as body: body.read(4096)

Source: Docker Plugin API v2 (plugin_api.md). A plugin is trusted with what its subsystem hands it, but not with our
memory or our time: answers are bounded and every call has a deadline.
"""

from wherry.plugins._address import Address, Places, announced, discover
from wherry.plugins._client import Body, Plugin, activate, activate_async

__all__ = ["Address", "Body", "Places", "Plugin", "activate", "activate_async", "announced", "discover"]
