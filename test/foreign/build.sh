#!/bin/sh
# Fetches and builds plugins that others wrote, those of plugins.txt or those that are named:
#
#	test/foreign/build.sh [NAME...]
#
# Everything lies in $FOREIGN (~/.cache/remora-foreign), nothing in the repository. Sources come
# from the Go module proxy or from GitHub; with FOREIGN_MIRROR=DIR, from the bare repositories
# DIR/OWNER+NAME/repo. What cannot be had or built is said, and the rest goes on.
set -u
here=$(cd "$(dirname "$0")" && pwd)
work=${FOREIGN:-$HOME/.cache/remora-foreign}
mkdir -p "$work/bin" "$work/src"
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:-} -buildvcs=false" GOTOOLCHAIN=local

# unpack DIR MODULE COMMIT [PATHS] puts the files of a commit into DIR.
unpack() {
	repo=${2#github.com/}
	mkdir -p "$1"
	mirror=${FOREIGN_MIRROR:-/nonexistent}/$(echo "$repo" | tr / +)/repo
	if [ -d "$mirror" ]; then
		[ -d "$mirror/.git" ] && mirror=$mirror/.git
		git --git-dir="$mirror" archive "$3" -- . ${4:+"$4"} | tar -x -C "$1"
	else
		git -C "$1" init -q &&
			git -C "$1" fetch -q --depth 1 "https://github.com/$repo" "$3" &&
			git -C "$1" checkout -q FETCH_HEAD
	fi
}

build() {
	name=$1 how=$2 module=$3 version=$4 package=${5:-.}
	bin=$work/bin/$name
	[ -x "$bin" ] && [ "$(cat "$bin.version" 2>/dev/null)" = "$version" ] && return
	echo "foreign: building $name $version"
	case $how in
	proxy)
		dir=$work/src/$name-$version
		mkdir -p "$dir/gobin" && GOBIN=$dir/gobin go install "$module@$version" && mv "$dir/gobin/${module##*/}" "$bin"
		;;
	gopath) # from before modules, with its dependencies beside it
		gopath=$work/src/$name-$version
		dir=$gopath/src/$module
		[ -d "$dir" ] || unpack "$dir" "$module" "$version"
		(cd "$dir" && GO111MODULE=off GOPATH=$gopath go build -o "$bin" "$package")
		;;
	modules)
		dir=$work/src/$name-$version
		[ -d "$dir" ] || unpack "$dir" "$module" "$version" ':(exclude)vendor'
		rm -rf "$dir/vendor"
		(cd "$dir" && go build -mod=mod -o "$bin" "$package")
		;;
	esac && echo "$version" >"$bin.version" || {
		echo "foreign: $name $version could not be built"
		return 1
	}
}

failed=0
while read -r name how module version package; do
	case $name in '' | '#'*) continue ;; esac
	if [ $# -gt 0 ]; then
		wanted=
		for arg; do [ "$arg" = "$name" ] && wanted=1; done
		[ "$wanted" ] || continue
	fi
	build "$name" "$how" "$module" "$version" ${package:+"$package"} </dev/null || failed=1
done <"$here/plugins.txt"
exit $failed
