"""Step 2. Which IP addresses lie on the public internet; whoever names another one names a neighbour of this server."""

from __future__ import annotations

import ipaddress

GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that is given out; the rest is local, old or not yet anything
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")  # how networks without IPv4 reach it; the address is in the last 32 bits
# Public by their numbers, and not by what answers there.
KEPT_OUT = (
    ipaddress.IPv4Network("168.63.129.16/32"),  # Azure's own services, from inside of its machines
    ipaddress.IPv4Network("192.0.0.0/24"),  # protocols' own, Oracle's metadata among them; Python knows only a part as private
    ipaddress.IPv4Network("192.88.99.0/24"),  # relays of 6to4
    ipaddress.IPv6Network("2001::/23"),  # protocols of their own, such as Teredo, which holds an IPv4 address
    ipaddress.IPv6Network("2002::/16"),  # 6to4, which holds an IPv4 address
    ipaddress.IPv6Network("2001:db8::/32"),
    ipaddress.IPv6Network("3fff::/20"),
)


def is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return is_public(str(parsed.ipv4_mapped))
        if parsed in NAT64:
            return is_public(str(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)))
        if parsed not in GLOBAL_UNICAST:
            return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in KEPT_OUT)
