#!/bin/sh
# Brings the documents that the questions beside this file are about: documents.sh DIRECTORY
# Debian 12: 25 man pages of systemd 252, the policy manual 4.6.2 (PDF, 193 pages), the German Debian reference
# 2.100 (PDF, 276 pages). Then: hauswart academy train DIRECTORY/documents --config FILE
set -eu
where=$1
mkdir -p "$where/packages" "$where/documents"
cd "$where/packages"
apt-get download systemd debian-policy debian-reference-de
for package in *.deb; do dpkg -x "$package" unpacked; done
man=unpacked/usr/share/man
for page in man5/systemd.service.5 man5/systemd.unit.5 man5/systemd.timer.5 man5/systemd.exec.5 \
    man5/systemd.resource-control.5 man5/systemd.kill.5 man5/systemd.socket.5 man5/systemd.mount.5 \
    man5/systemd.path.5 man5/journald.conf.5 man5/logind.conf.5 man5/tmpfiles.d.5 man5/systemd-system.conf.5 \
    man5/systemd-sleep.conf.5 man5/pstore.conf.5 man5/sysusers.d.5 man5/systemd.automount.5 man5/systemd.swap.5 \
    man1/systemctl.1 man1/journalctl.1 man1/systemd-analyze.1 man1/systemd-run.1 man1/hostnamectl.1 \
    man1/timedatectl.1 man1/loginctl.1; do
    cp -L "$man/$page.gz" ../documents/
done
cp -L unpacked/usr/share/debian-reference/debian-reference.de.pdf ../documents/
cp -L unpacked/usr/share/doc/debian-policy/policy.pdf.gz ../documents/
