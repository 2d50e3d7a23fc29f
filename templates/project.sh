#!/usr/bin/env bash
# Make in a Google Cloud project what reelscribe's jobs need, with no more rights than they need:
#   templates/project.sh --project P --region R --uploads gs://U --dataset gs://D --bucket gs://B [--dry-run]
# What is there already is left as it is, so it can be run again.
set -euo pipefail
# shellcheck source=templates/options.sh
source "$(dirname "${BASH_SOURCE[0]}")/options.sh"

usage() {
    cat <<'TEXT'
usage: project.sh --project P --region R --uploads gs://U --dataset gs://D --bucket gs://B [options]

  --project P          the project
  --region R           of the jobs, the images and new buckets
  --uploads gs://U     bucket of the videos
  --dataset gs://D     bucket of the datasets
  --bucket gs://B      bucket of templates and temporary objects (a new one deletes temp/, build/ after 14 days)
  --repository REPO    Docker repository of Artifact Registry (reelscribe)
  --name NAME          of the service accounts, the topic and the subscription (reelscribe)
  --network NET        network of the workers (default)
  --subnetwork SUBNET  its subnetwork in the region (default)
  --accelerator TYPE   whose quota is looked at (nvidia-l4)
  --launcher MEMBER    who may launch jobs: user:someone@example.org, group:..., serviceAccount:...
  --dead-letter        a dead-letter topic for `reelscribe watch` outside Dataflow (docs/dataflow.md)
  --no-watch           no topic, no subscription, no notifications
  --dry-run            print the commands and do nothing
TEXT
}

# Ask whether something is there; with --dry-run nothing is.
there() {
    [[ -z $dry_run ]] && "$@" >/dev/null 2>&1
}

project='' region='' uploads='' dataset='' bucket='' launcher='' dead_letter='' no_watch='' dry_run=''
repository=reelscribe name=reelscribe network=default subnetwork=default accelerator=nvidia-l4
flag='' value='' taken=0
while (($#)); do
    case $1 in
        --help | -h) usage && exit 0 ;;
        --dry-run) dry_run=yes && shift && continue ;;
        --dead-letter) dead_letter=yes && shift && continue ;;
        --no-watch) no_watch=yes && shift && continue ;;
    esac
    read_option "$@"
    shift "$taken"
    case $flag in
        --project) project=$value ;;
        --region) region=$value ;;
        --uploads) uploads=${value%/} ;;
        --dataset) dataset=${value%/} ;;
        --bucket) bucket=${value%/} ;;
        --repository) repository=$value ;;
        --name) name=$value ;;
        --network) network=$value ;;
        --subnetwork) subnetwork=$value ;;
        --accelerator) accelerator=$value ;;
        --launcher) launcher=$value ;;
        *) fail "no option $flag; see --help" ;;
    esac
done

for asked in project region uploads dataset bucket; do
    [[ -n ${!asked} ]] || fail "--$asked is missing; see --help"
done
for asked in uploads dataset bucket; do
    [[ ${!asked} =~ ^gs://[a-z0-9][a-z0-9._-]+[a-z0-9]$ ]] || fail "--$asked is not of the form gs://NAME: ${!asked}"
done
[[ $name =~ ^[a-z]([-a-z0-9]{4,18}[a-z0-9])$ ]] || fail "--name has 6 to 20 letters, digits and dashes: $name"
[[ -z $launcher || $launcher =~ ^(user|group|serviceAccount):.+@.+$ ]] || fail "--launcher is user:EMAIL, group:EMAIL or serviceAccount:EMAIL"
[[ -n $dry_run ]] || command -v gcloud >/dev/null || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

worker=$name-worker@$project.iam.gserviceaccount.com
builder=$name-build@$project.iam.gserviceaccount.com
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

echo "# services"
run gcloud services enable \
    artifactregistry.googleapis.com cloudbuild.googleapis.com cloudresourcemanager.googleapis.com \
    compute.googleapis.com dataflow.googleapis.com iam.googleapis.com iamcredentials.googleapis.com \
    logging.googleapis.com monitoring.googleapis.com pubsub.googleapis.com secretmanager.googleapis.com \
    storage.googleapis.com --project="$project"
# Dataflow's own agent, which makes the workers; asked for here it has its role before the first job.
run gcloud beta services identity create --service=dataflow.googleapis.com --project="$project"

echo "# images"
there gcloud artifacts repositories describe "$repository" --location="$region" --project="$project" ||
    run gcloud artifacts repositories create "$repository" --repository-format=docker --location="$region" \
        --description="reelscribe's images" --project="$project"

echo "# buckets"
# templates/ and models/ stay, and so does staging/: each new worker fetches from there what Beam staged at the launch, also
# in the third week of a watch. A bucket that was there keeps its own rules, and objects that somebody else has in temp/.
cat >"$scratch/lifecycle.json" <<'JSON'
{"rule": [{"action": {"type": "Delete"}, "condition": {"age": 14, "matchesPrefix": ["temp/", "build/"]}}]}
JSON
for one in "$uploads" "$dataset" "$bucket"; do
    flags=(--location="$region" --uniform-bucket-level-access --public-access-prevention --project="$project")
    # What a takedown or a compaction deletes shall be gone, and not be paid for another week. Uploads keep the default.
    if [[ $one != "$uploads" ]]; then flags+=(--soft-delete-duration=0); fi
    if [[ $one == "$bucket" ]]; then flags+=(--lifecycle-file="$scratch/lifecycle.json"); fi
    there gcloud storage buckets describe "$one" --project="$project" ||
        run gcloud storage buckets create "$one" "${flags[@]}"
done

echo "# who works, who builds, who launches"
for account in worker build; do
    there gcloud iam service-accounts describe "$name-$account@$project.iam.gserviceaccount.com" --project="$project" ||
        run gcloud iam service-accounts create "$name-$account" --display-name="reelscribe $account" --project="$project"
done

# Of the whole project: what a Dataflow worker must be allowed. The viewer's role lets the launcher and the last step of
# a job ask whether the job that holds a dataset still runs.
on_project() {
    run gcloud projects add-iam-policy-binding "$project" --member="$1" --role="$2" --condition=None --format=none
}
on_bucket() {
    run gcloud storage buckets add-iam-policy-binding "$1" --member="$2" --role="$3" --format=none
}
on_project "serviceAccount:$worker" roles/dataflow.worker
on_project "serviceAccount:$worker" roles/dataflow.viewer
on_bucket "$uploads" "serviceAccount:$worker" roles/storage.objectViewer
on_bucket "$dataset" "serviceAccount:$worker" roles/storage.objectUser
on_bucket "$bucket" "serviceAccount:$worker" roles/storage.objectUser
run gcloud artifacts repositories add-iam-policy-binding "$repository" --location="$region" \
    --member="serviceAccount:$worker" --role=roles/artifactregistry.reader --project="$project" --format=none

on_project "serviceAccount:$builder" roles/logging.logWriter
on_bucket "$bucket" "serviceAccount:$builder" roles/storage.objectUser
run gcloud artifacts repositories add-iam-policy-binding "$repository" --location="$region" \
    --member="serviceAccount:$builder" --role=roles/artifactregistry.writer --project="$project" --format=none

if [[ -n $launcher ]]; then
    on_project "$launcher" roles/dataflow.developer
    # A launch looks machine types up, which that role may not.
    on_project "$launcher" roles/compute.viewer
    on_bucket "$bucket" "$launcher" roles/storage.objectUser
    run gcloud iam service-accounts add-iam-policy-binding "$worker" --member="$launcher" \
        --role=roles/iam.serviceAccountUser --project="$project" --format=none
fi

if [[ -z $no_watch ]]; then
    echo "# notifications of uploads"
    topic=$name-uploads subscription=$name-uploads
    there gcloud pubsub topics describe "$topic" --project="$project" ||
        run gcloud pubsub topics create "$topic" --project="$project"
    # Making a notification lets Cloud Storage publish to the topic. A second one would tell everything twice.
    listed=''
    [[ -n $dry_run ]] || listed=$(gcloud storage buckets notifications list "$uploads" --format=json)
    [[ $listed == *"/topics/$topic\""* ]] ||
        run gcloud storage buckets notifications create "$uploads" --topic="projects/$project/topics/$topic" \
            --event-types=OBJECT_FINALIZE,OBJECT_DELETE,OBJECT_ARCHIVE
    # Kept for a week, for a watch that stood still over the holidays; never expired for want of a reader.
    flags=(--ack-deadline=600 --message-retention-duration=7d --expiration-period=never --project="$project")
    if [[ -n $dead_letter ]]; then
        there gcloud pubsub topics describe "$topic-dead" --project="$project" ||
            run gcloud pubsub topics create "$topic-dead" --project="$project"
        # A topic that nobody subscribes to keeps nothing.
        there gcloud pubsub subscriptions describe "$topic-dead" --project="$project" ||
            run gcloud pubsub subscriptions create "$topic-dead" --topic="$topic-dead" --expiration-period=never \
                --project="$project"
        flags+=(--dead-letter-topic="$topic-dead" --max-delivery-attempts=100)
    fi
    there gcloud pubsub subscriptions describe "$subscription" --project="$project" ||
        run gcloud pubsub subscriptions create "$subscription" --topic="$topic" "${flags[@]}"
    for role in roles/pubsub.subscriber roles/pubsub.viewer; do
        run gcloud pubsub subscriptions add-iam-policy-binding "$subscription" --member="serviceAccount:$worker" \
            --role="$role" --project="$project" --format=none
    done
    if [[ -n $dead_letter ]]; then
        number=PROJECT_NUMBER
        [[ -n $dry_run ]] || number=$(gcloud projects describe "$project" --format="value(projectNumber)")
        agent=serviceAccount:service-$number@gcp-sa-pubsub.iam.gserviceaccount.com
        run gcloud pubsub topics add-iam-policy-binding "$topic-dead" --member="$agent" \
            --role=roles/pubsub.publisher --project="$project" --format=none
        run gcloud pubsub subscriptions add-iam-policy-binding "$subscription" --member="$agent" \
            --role=roles/pubsub.subscriber --project="$project" --format=none
    fi
fi

echo "# network"
# Workers need no address of their own: Google's services are reached from inside.
run gcloud compute networks subnets update "$subnetwork" --region="$region" --enable-private-ip-google-access \
    --project="$project"
# Workers of one job speak to each other on these ports; nobody else does.
there gcloud compute firewall-rules describe "$name-dataflow" --project="$project" ||
    run gcloud compute firewall-rules create "$name-dataflow" --network="$network" --direction=INGRESS --action=ALLOW \
        --rules=tcp:12345-12346 --source-tags=dataflow --target-tags=dataflow --project="$project"

echo "# quota of $region: what, limit, used"
metric=$(tr a-z- A-Z_ <<<"$accelerator")_GPUS
metric=${metric/NVIDIA_TESLA_/NVIDIA_}
run gcloud compute regions describe "$region" --project="$project" --flatten=quotas \
    --format="csv[no-heading](quotas.metric,quotas.limit,quotas.usage)" >"$scratch/quota"
grep -E "^(\+.*|CPUS|DISKS_TOTAL_GB|SSD_TOTAL_GB|IN_USE_ADDRESSES|(PREEMPTIBLE_)?$metric),?" "$scratch/quota" || true
if [[ -z $dry_run ]]; then
    limit=$(sed -n "s/^$metric,\([0-9]*\).*/\1/p" "$scratch/quota")
    if ((${limit:-0} == 0)); then
        echo "no quota for $accelerator in $region: ask for $metric at" \
            "https://console.cloud.google.com/iam-admin/quotas?project=$project" >&2
    fi
fi

echo "done; next: templates/build.sh --project $project --region $region --repository $repository --bucket $bucket"
