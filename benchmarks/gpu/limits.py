"""The speed of each stage by itself, an upper bound for the whole job."""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from itertools import product

import numpy as np
import pyarrow as pa
import torch

from benchmarks.gpu import inputs
from benchmarks.gpu.bench import Bench
from configs.captioning import CompileCnn
from configs.search import Search
from model.captioner import Captioner
from model.cuda_graphs import CudaGraphs
from model.decoding.search import CaptionSearch
from model.decoding.static_beam_search import Run, run_directly
from model.device import autocast
from model.nn.encoder import Encoder
from model.nn.frozen_cnn import FrozenFeatures
from model.vision.preprocessing import Preprocessing
from pipeline.captioners.network_captioner import NetworkCaptioner
from pipeline.inference.caption_stage import CaptionStage
from pipeline.inference.decode_stage import DecodeStage
from pipeline.readers.reader import read
from pipeline.storage.prefetch import prefetch_map

NETWORKS = ("mobilenet_v2", "resnet50", "resnet101", "vgg16")
BATCHES = (256, 1024, 64, 128, 512)  # the most important first
SEARCH_BATCHES = (256, 1024, 64)
THREADS = (16, 4, 1)
TABLES_PER_THREAD = 4
BATCHES_IN_TURN = 4
SEARCHES = {"greedy": Search(method="greedy"), "beam 5": Search(beam_size=5)}


def decode(bench: Bench) -> None:
    """Measures images/s of the reader, and of the decoder with several numbers of threads."""
    spans = inputs.spans(bench)
    began = time.perf_counter()
    images = sum(map(len, read(spans, batch_size=inputs.batch_images(bench))))
    bench.figure("reading, 1 thread", images / (time.perf_counter() - began), "images/s")
    for threads in THREADS:
        bench.figure(f"decoding, {threads} threads", decoding(bench, threads), "images/s")


def decoding(bench: Bench, threads: int) -> float:
    """Measures images/s of the decoder with some threads."""
    tables = inputs.encoded(
        bench, bench.scaled(TABLES_PER_THREAD * threads * inputs.batch_images(bench), least=threads)
    )
    stage = DecodeStage([inputs.preprocessing()])
    began = time.perf_counter()
    deque(prefetch_map(stage, tables, threads=threads, depth=threads + 1), maxlen=0)
    return sum(map(len, tables)) / (time.perf_counter() - began)


def captioning(bench: Bench) -> float:
    """Measures images/s of the caption stage on decoded pixels: copy, CNN, search and rows.

    Records them for one batch after the other; returns them as a job has them, where a batch is begun while the one
    before it is searched.
    """
    alone = _captioning(bench, "never", begin_ahead=False)
    bench.figure("caption stage, one batch after the other", alone, "images/s")
    return _captioning(bench, "never", begin_ahead=True)


def _captioning(bench: Bench, compile_cnn: CompileCnn, *, begin_ahead: bool) -> float:
    network = NetworkCaptioner([inputs.CAPTIONER], compile_cnn=compile_cnn)
    stage = CaptionStage(network, device=bench.device.type, begin_ahead=begin_ahead)
    tables = [inputs.decoded(bench, 1)[0]] * bench.scaled(BATCHES_IN_TURN)
    step_s = bench.step_s(lambda: deque(stage.in_turn(tables), maxlen=0), seconds=4)
    return sum(map(len, tables)) / step_s


def cnn(bench: Bench) -> None:
    """Measures images/s of each CNN's features, frozen as a captioner has it, by batch size."""
    _cnn(bench, compiled=False)


def cnn_compiled(bench: Bench) -> None:
    """Measures images/s of the caption stage and of each CNN's features, compiled for each batch size."""
    if bench.device.type == "cuda":  # on a CPU, it takes minutes
        captioning_compiled = _captioning(bench, "always", begin_ahead=True)
        bench.figure("caption stage", captioning_compiled, "images/s")
    _cnn(bench, compiled=True)


def _cnn(bench: Bench, *, compiled: bool) -> None:
    pairs = product(BATCHES[: bench.scaled(len(BATCHES))], NETWORKS)
    bench.attempt({name(*pair): partial(_features, bench, *pair, compiled=compiled) for pair in pairs})


def name(batch: int, network: str) -> str:
    """Returns the name of a figure."""
    return f"{network}, batch {batch}"


def _features(bench: Bench, batch: int, network: str, *, compiled: bool) -> None:
    images = bench.scaled(batch)
    with bench.device:  # random weights are quick to generate there
        encoder = Encoder(network, 512).eval().requires_grad_(False).to(memory_format=torch.channels_last)
        pixels = torch.randint(0, 256, (images, 224, 224, 3), dtype=torch.uint8)
    features = FrozenFeatures(encoder, dtype=bench.dtype)
    with torch.inference_mode(), autocast(bench.device, bench.dtype):
        batch_of_images = Preprocessing().normalize(pixels)
        if compiled:
            began = time.perf_counter()
            features.compile(batch_of_images)
            bench.synchronize()
            bench.figure(f"{name(batch, network)}, compiled in", time.perf_counter() - began, "s")
        step_s = bench.step_s(lambda: features(batch_of_images), seconds=1)
        bench.figure(name(batch, network), images / step_s, "images/s")


def search(bench: Bench) -> None:
    """Measures images/s of search, and of what precedes it: copying pixels to the device, and the CNN."""
    captioner = Captioner.load(inputs.CAPTIONER, device=bench.device)
    bench.attempt({f"batch {batch}": partial(_search, bench, captioner, batch) for batch in SEARCH_BATCHES})


def _search(bench: Bench, captioner: Captioner, batch: int) -> None:
    images, (key,) = bench.scaled(batch), captioner.pixel_keys
    rows = pa.concat_tables(inputs.decoded(bench, images))["pixels"].to_pylist()[:images]
    pixels = {key: np.frombuffer(bytearray().join(rows), np.uint8).reshape(images, key.image_size, key.image_size, 3)}
    with torch.inference_mode(), autocast(bench.device, bench.dtype):
        step_s = bench.step_s(lambda: captioner.initial_state(pixels), seconds=1)
        bench.figure(f"encoder, batch {batch}", images / step_s, "images/s")
        state, suppressed_ids = captioner.initial_state(pixels), captioner.vocabulary.suppressed_ids
        for method, options in SEARCHES.items():
            for way, run in _ways(bench).items():
                search = CaptionSearch(options, captioner.decoder, bench.device, suppressed_ids=suppressed_ids, run=run)
                step_s = bench.step_s(partial(search, state), seconds=1)
                bench.figure(f"{method}, {way}, batch {batch}", images / step_s, "images/s")


def _ways(bench: Bench) -> dict[str, Run | None]:
    """Returns the ways to search, by name; on a GPU, captioners use the last one."""
    graphs: dict[str, Run | None] = {"CUDA graphs": CudaGraphs()} if bench.device.type == "cuda" else {}
    return {"finished beams removed": None, "fixed shapes": run_directly} | graphs
