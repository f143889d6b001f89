#!/bin/sh
# "remove" is Debian's word, 0 that of RPM; on an upgrade nothing stops. The data of
# volumes is never touched.
set -e
case ${1:-} in
remove | 0) ;;
*) exit 0 ;;
esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now remora.socket remora.service
