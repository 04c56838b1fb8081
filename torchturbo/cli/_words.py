"""The words that the command line completes, known without importing torch, which Tab would have to wait for.

Written by tools/generate.py from the catalogue of options: change that, not this.
"""

from __future__ import annotations

PROFILES = {
    "fast": "TF32 and bf16 where the hardware has them: usually several times faster, with training curves as before.",
    "max": "Everything fast does, float32 products that may round to bf16, and fp16 sums in fp16.",
    "exact": "float32 that is float32: no TF32, no autocast, no shortened sums; the reference to compare others with.",
    "reproducible": (
        "The same bits twice on the same machine, or an error that names the operation without such a kernel."
    ),
    "inference": "What fast gains, and no memory for gradients.",
    "low_memory": (
        "A fraction of the activations: repeated blocks keep their inputs alone; no gradients are kept between steps; "
        "GPU memory is cut so that little of it is lost. The same gradients, to the bit."
    ),
    "debug": (
        "float32, anomaly detection that names the forward call behind a NaN, and a warning at each operation that may"
        " give other bits next time."
    ),
}
"""What each built-in profile gives."""

OPTIONS = {
    "flash_sdp": (
        "May attention use FlashAttention: torch.backends.cuda.enable_flash_sdp (the CPU's kernel heeds it too)."
    ),
    "mem_efficient_sdp": "May attention use the memory-efficient kernel: torch.backends.cuda.enable_mem_efficient_sdp.",
    "cudnn_sdp": "May attention use cuDNN: torch.backends.cuda.enable_cudnn_sdp.",
    "math_sdp": "May attention use plain matrix products, which every input can: torch.backends.cuda.enable_math_sdp.",
    "grad": "Whether operations are recorded for backward: torch.set_grad_enabled.",
    "anomaly": "Name the forward call behind a failing or NaN backward, slowly: torch.autograd.set_detect_anomaly.",
    "fp16_reduction": (
        "May fp16 matrix products add their parts up in fp16, or (no_split_k) not even have parts: "
        "torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction."
    ),
    "bf16_reduction": (
        "May bf16 matrix products add their parts up in bf16, or (no_split_k) not even have parts: "
        "torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction."
    ),
    "fp16_accumulation": (
        "Add fp16 matrix products up in fp16 throughout: torch.backends.cuda.matmul.allow_fp16_accumulation."
    ),
    "blas_library": "The library that torch prefers for blas: torch.backends.cuda.preferred_blas_library.",
    "linalg_library": "The library that torch prefers for linalg: torch.backends.cuda.preferred_linalg_library.",
    "cublas_workspace": (
        "cuBLAS's workspace, which cuBLAS reads when CUDA starts: the environment's CUBLAS_WORKSPACE_CONFIG."
    ),
    "cudnn_precision": (
        "What float32 convolutions and recurrent nets on cuDNN use; one alone could not be put back on torch 2.13."
    ),
    "cudnn_enabled": "Whether cuDNN is used at all: torch.backends.cudnn.enabled.",
    "cudnn_benchmark": "Time cuDNN's kernels for each new shape and keep the fastest: torch.backends.cudnn.benchmark.",
    "cudnn_benchmark_limit": "How many kernels cudnn_benchmark tries, 0 for all: torch.backends.cudnn.benchmark_limit.",
    "cudnn_deterministic": "Only kernels of cuDNN that give the same bits twice: torch.backends.cudnn.deterministic.",
    "deterministic": (
        "Only algorithms that give the same bits twice, else an error, or a warning that names the operation and the "
        "line that called it: torch.use_deterministic_algorithms."
    ),
    "fill_uninitialized_memory": (
        "Fill new tensors while `deterministic` is on (slow): torch.utils.deterministic.fill_uninitialized_memory."
    ),
    "matmul_precision": "What float32 matrix products may round to: torch.set_float32_matmul_precision.",
    "tf32": "TF32 for matrix products, convolutions and recurrent nets at once.",
    "alloc_conf": (
        "How torch's allocator cuts GPU memory, which it reads when CUDA starts: the environment's PYTORCH_ALLOC_CONF."
    ),
    "empty_cache": "Collect garbage and give the GPU's unused memory back on entry, once: torch.cuda.empty_cache.",
    "mkldnn_precision": (
        "What float32 convolutions and recurrent nets on oneDNN may round to: torch.backends.mkldnn.conv and .rnn."
    ),
    "mkldnn_enabled": "Whether oneDNN is used at all: torch.backends.mkldnn.enabled.",
    "mkldnn_deterministic": (
        "Only kernels of oneDNN that give the same bits twice: torch.backends.mkldnn.deterministic."
    ),
    "default_dtype": "The dtype of new floating-point tensors: torch.set_default_dtype.",
    "num_threads": "How many threads one operation called from this thread uses on the CPU: torch.set_num_threads.",
    "accumulate": (
        "Micro-batches for each step: backward averages over them, and optimizers and schedulers step after the last."
    ),
    "autocast": (
        "Compute forward passes in half precision where it is safe: torch.autocast, made safe around a whole loop."
    ),
    "checkpoint": (
        "Compute activations of repeated blocks again in backward, and do not keep them: torch.utils.checkpoint."
    ),
    "compile": (
        "Run the outermost modules that are called compiled, in place, and never backward or a step: torch.compile."
    ),
    "channels_last": (
        "Hand outermost modules their images in torch.channels_last, in which many convolutions are faster."
    ),
    "fused_optimizer": (
        "Steps of Adam, AdamW, SGD and Adagrad by torch's fused kernels: fused=True, in optimizers made without it."
    ),
    "num_workers": "Processes that fetch batches, for data loaders made in the block whose call does not say.",
    "prefetch_factor": (
        "Batches that each worker fetches ahead, for data loaders made in the block whose call does not say."
    ),
    "pin_memory": (
        "Batches in pinned memory, copied to the GPU faster, for data loaders made in the block whose call does not "
        "say."
    ),
    "persistent_workers": (
        "Workers that are kept from epoch to epoch, for data loaders made in the block whose call does not say."
    ),
    "monitor": "Watch loops over data loaders: speed, waiting, GPU, memory, and once an alert that names the cause.",
    "prefetch": "Move batches of data loaders iterated in the block to the GPU, the next while one is used.",
    "init_scale": "The scale of gradients that fp16 training begins with: init_scale of torch.amp.GradScaler.",
    "growth_factor": (
        "What the scale is multiplied by after growth_interval steps that all ran: growth_factor of "
        "torch.amp.GradScaler."
    ),
    "backoff_factor": "What the scale is multiplied by when a step is skipped: backoff_factor of torch.amp.GradScaler.",
    "growth_interval": "Steps in a row that must run before the scale grows: growth_interval of torch.amp.GradScaler.",
    "seed": (
        "Start the random numbers of Python, NumPy and torch, on every device, from this seed; put back afterwards."
    ),
    "set_to_none": (
        "Let go of gradients where zero_grad(set_to_none=False) would fill them with zeros; steps still see zeros."
    ),
}
"""What each option is."""

VALUES = {
    "flash_sdp": ("true", "false"),
    "mem_efficient_sdp": ("true", "false"),
    "cudnn_sdp": ("true", "false"),
    "math_sdp": ("true", "false"),
    "grad": ("true", "false"),
    "anomaly": ("true", "false"),
    "fp16_reduction": ("true", "false", "no_split_k"),
    "bf16_reduction": ("true", "false", "no_split_k"),
    "fp16_accumulation": ("true", "false"),
    "blas_library": ("cublas", "cublaslt"),
    "linalg_library": ("default", "cusolver", "magma"),
    "cublas_workspace": (),
    "cudnn_precision": ("ieee", "tf32"),
    "cudnn_enabled": ("true", "false"),
    "cudnn_benchmark": ("true", "false"),
    "cudnn_benchmark_limit": (),
    "cudnn_deterministic": ("true", "false"),
    "deterministic": ("false", "warn", "true"),
    "fill_uninitialized_memory": ("true", "false"),
    "matmul_precision": ("highest", "high", "medium"),
    "tf32": ("true", "false"),
    "alloc_conf": (),
    "empty_cache": ("true", "false"),
    "mkldnn_precision": ("ieee", "tf32", "bf16"),
    "mkldnn_enabled": ("true", "false"),
    "mkldnn_deterministic": ("true", "false"),
    "default_dtype": ("float32", "float64", "bfloat16", "float16"),
    "num_threads": (),
    "accumulate": (),
    "autocast": ("auto", "bf16", "fp16", "none"),
    "checkpoint": ("false", "auto", "true"),
    "compile": ("false", "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
    "channels_last": ("true", "false"),
    "fused_optimizer": ("false", "auto", "true"),
    "num_workers": ("auto",),
    "prefetch_factor": ("auto",),
    "pin_memory": ("true", "false", "auto"),
    "persistent_workers": ("true", "false", "auto"),
    "monitor": ("false", "auto", "lines", "json"),
    "prefetch": ("true", "false"),
    "init_scale": (),
    "growth_factor": (),
    "backoff_factor": (),
    "growth_interval": (),
    "seed": (),
    "set_to_none": ("true", "false"),
}
"""The values of each option that can be listed."""

MACHINES = (
    "V100",
    "T4",
    "RTX 3090",
    "RTX 4090",
    "A100",
    "H100",
    "H200",
    "B200",
    "cpu-bf16",
    "cpu",
    "B580",
    "Max 1550",
    "apple",
)
"""The machines that can be pretended."""
