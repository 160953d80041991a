"""Puts hauswart's units and what they need onto a host that systemd runs, and takes them away again."""
