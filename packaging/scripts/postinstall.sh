#!/bin/sh
# After an installation systemd knows the units; nothing is enabled or started, as that
# is the administrator's to say. After an upgrade a running daemon becomes the new one;
# the mounts of running containers stay.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl try-restart remora.service
# These read the files about interfaces anew, where they run; where that fails they do so at the next boot.
! systemctl -q is-active systemd-networkd.service || networkctl reload || true
! systemctl -q is-active NetworkManager.service || nmcli general reload || true
