#!/bin/bash
# newer-peers.sh DIRECTORY - crun and runc of Debian's next release, made to run here: DIRECTORY/bin/{crun,runc}.
#
# Debian 12's own are years old. Each comes with its own loader and libraries; the machine's packages stay as they are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
directory=$(cd "$1" && pwd)
[[ ! -e $directory/complete ]] || exit 0
"$here/../scripts/need" patchelf
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
mkdir -p "$directory"/{bin,apt/lists/partial,apt/cache/archives/partial}
printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$archive" forky "$archive" trixie \
	>"$directory/apt/sources.list"
: >"$directory/apt/status"
apt=(-qq -o Dir::Etc::sourcelist="$directory/apt/sources.list" -o Dir::Etc::sourceparts=- -o APT::Sandbox::User=root
	-o Dir::State::lists="$directory/apt/lists" -o Dir::State::status="$directory/apt/status" -o Dir::Cache="$directory/apt/cache")
apt-get "${apt[@]}" update

peer() { # peer PACKAGE PATH-BELOW-/usr
	local root=$directory/$1 package loader
	mkdir -p "$root/debs"
	for package in "$1" $(apt-cache "${apt[@]}" depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks \
		--no-replaces --no-enhances "$1" | grep -E '^lib' | grep -vE '^(libc-bin|libpam|libdebconf)' | sort -u); do
		# Virtual packages have nothing to download.
		(cd "$root/debs" && apt-get "${apt[@]}" download "$package" 2>/dev/null) || :
	done
	for package in "$root"/debs/*.deb; do dpkg-deb -x "$package" "$root"; done
	loader=$(find "$root" -name ld-linux-x86-64.so.2 -path '*x86_64-linux-gnu*' | head -n 1)
	cp "$root/usr/$2" "$directory/bin/$1"
	patchelf --set-interpreter "$loader" --force-rpath --set-rpath "$(dirname "$loader")" "$directory/bin/$1"
	"$directory/bin/$1" --version | sed -n 1p
}
peer crun bin/crun
peer runc sbin/runc
touch "$directory/complete"
