#!/bin/sh
# After an installation systemd knows the units; nothing is enabled or started, as that
# is the administrator's to say. After an upgrade a running daemon becomes the new one;
# the mounts of running containers stay.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
systemctl try-restart remora.service
