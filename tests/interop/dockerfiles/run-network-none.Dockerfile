FROM base
RUN --network=none ip link | grep -c mtu > /links
RUN --network=default ip link | grep -c mtu > /links2
