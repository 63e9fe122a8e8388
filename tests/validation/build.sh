#!/bin/bash
# build.sh - builds the official validation suite (opencontainers/runtime-tools) from Debian's archive, and prints its directory.
#
# The source is the upstream tarball that newer Debian releases carry (bookworm's -dev package lacks validation/). Its libraries
# are bookworm's golang-*-dev packages; github.com/mndrix/tap-go is not in Debian: tap.go beside this script stands in for it.
# Kept under $KELSON_CACHE (default ~/.cache/kelson), and built anew when this directory's inputs change.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
go=${GO:-go}
tarball=golang-github-opencontainers-runtime-tools_0.9.0.109.ge931285.orig.tar.xz
sum=203989a1ea98cf2aaced79155bbda09270b20db19b03376dde91ab12e5e6a0fe
key=$({ cat "$here/build.sh" "$here/tap.go"; "$go" version; } | cksum | cut -d' ' -f1)
work=${KELSON_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kelson}/validation-$key
suite=$work/build/src/github.com/opencontainers/runtime-tools
if [[ -e $work/built ]]; then
	echo "$suite"
	exit
fi

retry() {
	"$@" || { sleep 2; "$@"; } || { sleep 10; "$@"; }
}

src=$work/build/src/github.com
rm -rf "$work"
mkdir -p "$work"/{debs,gopath} "$src/opencontainers" "$src/mndrix/tap-go"
cd "$work"
archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m 1 '/debian/*$')
retry curl -fsSO "${archive%/}/pool/main/g/golang-github-opencontainers-runtime-tools/$tarball"
echo "$sum  $tarball" | sha256sum -c --quiet
(
	cd debs
	retry apt-get -qq -o APT::Sandbox::User=root download \
		golang-github-{blang-semver,hashicorp-go-multierror,hashicorp-errwrap,mrunalp-fileutils,opencontainers-specs,opencontainers-selinux,sirupsen-logrus,urfave-cli,xeipuuv-gojsonschema,xeipuuv-gojsonpointer,xeipuuv-gojsonreference,google-uuid,cpuguy83-go-md2man-v2,russross-blackfriday-v2,shurcool-sanitized-anchor-name,burntsushi-toml}-dev \
		golang-gocapability-dev golang-golang-x-sys-dev golang-gopkg-yaml.v3-dev
) >&2
for deb in debs/*.deb; do dpkg-deb -x "$deb" gopath; done
cp "$here/tap.go" "$src/mndrix/tap-go/"
tar xJf "$tarball" -C "$src/opencontainers"
mv "$src"/opencontainers/golang-github-opencontainers-runtime-tools-* "$suite"

cd "$suite"
export GOPATH=$work/build:$work/gopath/usr/share/gocode GOCACHE=$work/gocache
export GO111MODULE=off GOTOOLCHAIN=local GOPROXY=off GOFLAGS= CGO_ENABLED=0
# runtimetest runs inside the container and must be static.
"$go" build -tags "netgo osusergo" -o runtimetest ./cmd/runtimetest
for program in validation/*/; do
	name=$(basename "$program")
	[[ $name == util ]] || "$go" build -o "validation/$name/$name.t" "./validation/$name"
done
rm -rf "$work/gocache" "$work/debs"
touch "$work/built"
echo "$suite"
