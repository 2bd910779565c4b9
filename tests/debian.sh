# Sourced: gets Debian packages where that is allowed.

# debian_package PACKAGE PURPOSE: installs the package, or says why it is still missing.
debian_package() {
    if [[ $(id -u) != 0 ]] || ! command -v apt-get >/dev/null; then
        echo "The Debian package $1 ($2) is missing and only root can install it" >&2
        return
    fi
    echo "Installing the Debian package $1 ($2)"
    { apt_get update && apt_get install --yes --no-install-recommends "$1"; } ||
        echo "The Debian package $1 ($2) could not be installed" >&2
}

apt_get() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null
}

# tray_packages: a display without a screen, a session bus, and a panel with a tray.
tray_packages() {
    command -v Xvfb >/dev/null || debian_package xvfb "tests of the tray"
    command -v dbus-daemon >/dev/null || debian_package dbus-daemon "tests of the tray"
    command -v xfce4-panel >/dev/null || debian_package xfce4-panel "tests of the tray"
}
