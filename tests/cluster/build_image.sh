#!/usr/bin/env bash
# Carry out docker/Dockerfile without a Docker engine, up to its cpu image, and try that.
# By hand: it takes root, Debian 12 with network, some 25 GB in FOLDER, and fetches 4 GB.
#   tests/cluster/build_image.sh FOLDER [OPTIONS OF buildah bud AND run]
# The base is Debian's own Python in the place of python:3.11-slim-bookworm's.
set -eu
folder=$(realpath -m "$1")
shift
cd "$(dirname "$0")/../.."
export STORAGE_DRIVER=${STORAGE_DRIVER:-vfs} BUILDAH_ISOLATION=chroot
store=(--root "$folder/images" --runroot "$folder/run")
buildah() { command buildah "${store[@]}" "$@"; }

say() { printf '%s build_image: %s\n' "$(date +%T)" "$*"; }

mkdir -p "$folder"
if ! command -v buildah >/dev/null || ! command -v debootstrap >/dev/null; then
    say "installing buildah and debootstrap"
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends buildah debootstrap >/dev/null
fi

if [ ! -e "$folder/base.done" ]; then
    say "base"
    rm -rf "$folder/base"
    debootstrap --variant=minbase \
        --include=ca-certificates,python3,python3-venv,python3-dev \
        bookworm "$folder/base" http://deb.debian.org/debian >"$folder/base.log"
    touch "$folder/base.done"
fi
base=$(buildah from scratch)
buildah add --quiet "$base" "$folder/base" /
buildah commit --quiet --rm "$base" base

say "image"
buildah bud --network host --target cpu --build-arg BASE=localhost/base \
    --file docker/Dockerfile --tag rrl_dist:cpu "$@" .

say "trying it"
image=$(buildah from rrl_dist:cpu)
within() { buildah run --network host "$image" -- "$@"; }
[ "$(within id -u)" = 1000 ]
if within dpkg-query -W | grep -E '^(libopencv|libturbojpeg)[^:]*-dev|^g[+][+]|^pkg-?config'; then
    say "the packages above are not to be shipped"
    exit 1
fi
within docker/healthy.sh
if within docker/healthy.sh node; then
    say "no Ray node runs, and docker/healthy.sh found one"
    exit 1
fi
within bash -lc 'ray --version && rrl --help >/dev/null && python -c "import rrl_dist"'
within python -c 'import deepspeed, ffcv, ray, torch, torchvision, rrl_dist'
# FFCV writes and reads here, and Ray starts workers.
within rrl pretrain name=try data=digits model=small_cnn objective=simclr views=digits \
    optim=sgd loader=ffcv cluster=local train.max_steps=2
du -sh "$folder/images" | cut -f1

# A contributor's way, in the same root: the whole tree, what is missing, all checks.
say "make check in it"
git archive --output "$folder/tree.tar" HEAD
buildah add --quiet "$image" "$folder/tree.tar" /rrl_dist
buildah run --user 0 --network host "$@" "$image" -- sh -c \
    'apt-get update -qq && apt-get install -y -qq make git >/dev/null && make check'
say "done"
