#!/usr/bin/env bash
# Build both images and upload both templates, with Cloud Build:
#   templates/build.sh --project P --region R --repository REPO --bucket gs://B [--models DIR_OR_GS] [--dry-run]
set -euo pipefail
# shellcheck source=templates/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"

usage() {
    cat <<'TEXT'
usage: build.sh --project P --region R --repository REPO --bucket gs://B [options]

  --project P            the project that builds
  --region R             where the images stand; the region of the jobs
  --repository REPO      Docker repository of Artifact Registry, made by project.sh
  --bucket gs://B        where sources are staged and templates/*.json go
  --models DIR|gs://...  folder of weights for the worker image, found there at /models/NAME
  --extras LIST          extras of the worker image (local,gcp,endpoint,hygiene,ocr,transnet)
  --python X.Y           Python of both images (3.11; 3.12 and 3.13 have pins, too)
  --tag TAG              tag of both images (the version and, in a git checkout, its commit)
  --service-account A    who builds (reelscribe-build@P.iam.gserviceaccount.com)
  --audit strict|report  whether a known vulnerability ends the build (report)
  --dry-run              print the commands and do nothing
TEXT
}

project='' region='' repository='' bucket='' models='' tag='' service_account='' dry_run=''
extras=local,gcp,endpoint,hygiene,ocr,transnet python=3.11 audit=report
flag='' value='' taken=0
while (($#)); do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --dry-run) dry_run=yes && shift && continue ;;
    esac
    read_option "$@"
    shift "$taken"
    case $flag in
        --project) project=$value ;;
        --region) region=$value ;;
        --repository) repository=$value ;;
        --bucket) bucket=${value%/} ;;
        --models) models=${value%/} ;;
        --extras) extras=$value ;;
        --python) python=$value ;;
        --tag) tag=$value ;;
        --service-account) service_account=$value ;;
        --audit) audit=$value ;;
        *) fail "no option $flag; see --help" ;;
    esac
done

for name in project region repository bucket; do
    [[ -n ${!name} ]] || fail "--$name is missing; see --help"
done
[[ $bucket =~ ^gs://[a-z0-9][a-z0-9._-]+[a-z0-9]$ ]] || fail "--bucket is not of the form gs://NAME: $bucket"
[[ $python =~ ^3\.1[1-3]$ ]] || fail "--python is 3.11, 3.12 or 3.13, not $python"
[[ $audit == strict || $audit == report ]] || fail "--audit is strict or report, not $audit"
[[ -z $models || $models == gs://* || -d $models ]] || fail "--models: no such folder: $models"
[[ -n $dry_run ]] || command -v gcloud >/dev/null || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/beam_pipeline/__init__.py")
# A tree with changes that are not committed is nobody's commit.
revision=unknown commit='' changed=''
if git -C "$root" rev-parse --git-dir >/dev/null 2>&1; then
    commit=$(git -C "$root" rev-parse HEAD)
    [[ -z $(git -C "$root" status --porcelain) ]] || changed=-changed
    revision=$commit$changed
fi
tag=${tag:-$version${commit:+-${commit:0:9}}$changed}
service_account=${service_account:-reelscribe-build@$project.iam.gserviceaccount.com}

# Weights go by the bucket: only what changed is uploaded, and an upload that breaks off goes on.
if [[ -n $models && $models != gs://* ]]; then
    run gcloud storage rsync "$models" "$bucket/models" --recursive --project="$project"
    models=$bucket/models
fi

# ^;^ lets the list of extras keep its commas (gcloud topic escaping).
run gcloud builds submit "$root" \
    --project="$project" \
    --region="$region" \
    --config="$root/templates/cloudbuild.yaml" \
    --ignore-file=.dockerignore \
    --gcs-source-staging-dir="$bucket/build/source" \
    --service-account="projects/$project/serviceAccounts/$service_account" \
    --substitutions="^;^_IMAGES=$region-docker.pkg.dev/$project/$repository;_TAG=$tag;_VERSION=$version;_REVISION=$revision;_BUCKET=$bucket;_MODELS=$models;_EXTRAS=$extras;_PYTHON=$python;_AUDIT=$audit"

echo "templates: $bucket/templates/reelscribe-curate.json $bucket/templates/reelscribe-watch.json"
echo "this build's own, for going back: $bucket/templates/$tag/"
