#!/bin/sh
# Installs Debian package $1 where we may; else says what to run. $2 says what is missing.
set -eu
package=$1
sudo=
[ "$(id -u)" = 0 ] || sudo="sudo -n"
echo "$2 is missing; installing $package …"
if command -v apt-get >/dev/null 2>&1 &&
    DEBIAN_FRONTEND=noninteractive $sudo apt-get update -qq &&
    DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "$package" >/dev/null; then
    exit 0
fi
echo "It could not be installed. Please run: sudo apt-get install $package" >&2
exit 1
