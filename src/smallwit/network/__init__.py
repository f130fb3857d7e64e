"""Connections to other machines: the hub, the log of hosts, --offline."""
