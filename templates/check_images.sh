#!/usr/bin/env bash
# What can be seen of the two images without a cloud and without a GPU: check_images.sh LAUNCHER WORKER
# That they hold the same reelscribe, Beam and Python, that the launcher has no torch, that the worker loads its models
# without a network, and that what Dataflow starts is there.
set -euo pipefail

(($# == 2)) || { echo "usage: check_images.sh LAUNCHER WORKER" >&2; exit 2; }
launcher=$1 worker=$2

in_image() {
    local image=$1
    shift
    docker run --rm --network none --entrypoint "$1" "$image" "${@:2}"
}

# Pickled functions and the state of transforms travel from the one to the other.
versions='import platform, apache_beam, beam_pipeline
print(beam_pipeline.__version__, apache_beam.__version__, platform.python_version().rpartition(".")[0])'
ours=$(in_image "$launcher" python -c "$versions")
theirs=$(in_image "$worker" python -c "$versions")
if [[ $ours != "$theirs" ]]; then
    echo "launcher holds $ours, worker $theirs (reelscribe, Beam, Python): build both from one tree" >&2
    exit 1
fi
echo "both hold reelscribe, Beam and Python $ours"

in_image "$launcher" python -c 'import importlib.util, beam_pipeline.flex_template
assert importlib.util.find_spec("torch") is None, "torch is in the launcher image"'
in_image "$launcher" test -x /opt/google/dataflow/python_template_launcher
in_image "$worker" test -x /opt/apache/beam/boot
in_image "$worker" python -c 'import torch, torchvision
assert torch.version.cuda, "this torch was built without CUDA"
print("torch", torch.__version__, "with CUDA", torch.version.cuda)'
for image in "$launcher" "$worker"; do
    in_image "$image" test -s /usr/share/reelscribe/sbom.json
done
# Decodes, loads the models of the lite profile out of the image, and tells what is missing.
in_image "$worker" reelscribe doctor --profile lite
