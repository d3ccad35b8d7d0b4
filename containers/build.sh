#!/usr/bin/env bash
# Build the image from what is committed: containers/build.sh [docker|podman|apptainer] [NAME]
#
# The base is the one in containers/base.txt. Without a digest there, it is looked up and written down first, to be
# committed: from then on everybody builds on the same bytes. podman and apptainer need a digest that is there already.
set -euo pipefail
cd "$(dirname "$0")/.."
tool=${1:-docker} name=${2:-vaco}
fail() { echo "build: $*" >&2; exit 2; }

command -v "$tool" >/dev/null || fail "there is no $tool here: give docker, podman or apptainer"
[ -z "$(git status --porcelain --untracked-files=no)" ] || fail "files differ from the commit: commit them first"
base=$(cat containers/base.txt)
if [[ $base != *@sha256:* ]]; then
  [ "$tool" = docker ] || fail "containers/base.txt names no digest: build with docker once, which looks it up"
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$base") ||
    fail "the digest of $base could not be looked up: the registry must be reachable"
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || fail "'$digest' is no digest of $base"
  base="$base@$digest"
  echo "$base" >containers/base.txt
  echo "build: commit containers/base.txt, which now names $base"
fi
revision=$(git rev-parse HEAD)
# What git tracks, and nothing else of this folder.
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
git archive HEAD | tar -x -C "$place"
if [ "$tool" = apptainer ]; then
  target=$PWD/$name.sif
  (cd "$place" && apptainer build --build-arg "BASE=$base" --build-arg "REVISION=$revision" "$target" containers/vaco.def)
else
  "$tool" build --build-arg "BASE=$base" --build-arg "REVISION=$revision" --tag "$name" --file containers/Dockerfile "$place"
fi
