"""How llama.cpp and the native library were built, against what this CPU can do."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import llama_cpp

from vocabtailor_gguf.binding import native
from vocabtailor_gguf.binding.types import parse_type, weight_buffer
from vocabtailor_gguf.doctor.check import Check
from vocabtailor_gguf.errors import VersionError, VocabTailorError

# names of llama_print_system_info, and flags of /proc/cpuinfo (x86, then aarch64)
_FLAGS = {
    "AVX": "avx",
    "AVX2": "avx2",
    "F16C": "f16c",
    "FMA": "fma",
    "BMI2": "bmi2",
    "AVX_VNNI": "avx_vnni",
    "AVX512": "avx512f",
    "AVX512_VBMI": "avx512vbmi",
    "AVX512_VNNI": "avx512_vnni",
    "AVX512_BF16": "avx512_bf16",
    "AMX_INT8": "amx_int8",
    "NEON": "asimd",
    "DOTPROD": "asimddp",
    "FP16_VA": "asimdhp",
    "MATMUL_INT8": "i8mm",
    "SVE": "sve",
}
# without these a product of weights takes much longer
_WANTED = ("AVX2", "FMA", "F16C", "AVX512", "AVX512_VNNI", "AMX_INT8", "DOTPROD", "MATMUL_INT8")
_WEIGHTS = ("Q8_0", "Q4_0", "Q4_K", "Q6_K")
_N_EMBD, _N_ROWS = 2048, 4096  # of a weight as models have them


def check_versions() -> list[Check]:
    """Check that the native library fits the installed llama.cpp."""
    found = f"llama-cpp-python {llama_cpp.__version__}"
    try:
        built = native.ffi.string(native.lib().vt_build_info()).decode()
    except (VersionError, VocabTailorError) as e:
        return [Check("libvocabtailor", "fail", str(e), "install vocabtailor_gguf again")]
    return [Check("versions", "ok", f"{found}; libvocabtailor built for {built}"), *_compilers()]


def _compilers() -> list[Check]:
    lines = []
    for what, path in (("llama.cpp", _ggml_library()), ("libvocabtailor", native.library_path())):
        name = _compiler_of(path) if path is not None else None
        lines.append(f"{what} by {name or 'a compiler that left no name'}")
    return [Check("compiler", "ok", "; ".join(lines))]


def _ggml_library() -> Path | None:
    folder = Path(llama_cpp.__file__).parent / "lib"
    found = sorted(p for p in folder.glob("*ggml-cpu*") if p.suffix in (".so", ".dylib", ".dll"))
    return found[0] if found else None


def _compiler_of(path: Path) -> str | None:
    """Return the name that GCC and Clang leave in a file (the .comment section of ELF)."""
    try:
        with (
            open(path, "rb") as f,
            mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found = re.search(rb"GCC: \([^\0]{1,100}|[ -~]{0,40}clang version [^\0]{1,60}", data)
            return found[0].decode("ascii", "replace") if found else None
    except (OSError, ValueError):
        return None


def built_flags() -> set[str]:
    """Return the instruction sets that ggml was compiled for, as llama.cpp names them."""
    info = llama_cpp.llama_print_system_info().decode("ascii", "replace")
    return {name for name, on in re.findall(r"(\w+) = (\d+)", info) if on != "0"}


def cpu_flags() -> set[str]:
    """Return the flags of /proc/cpuinfo; none where there is no such file."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", text, flags=re.MULTILINE)
    return set(found[1].split()) if found else set()


def check_cpu() -> Check:
    """Compare the instruction sets of the build with those of the CPU."""
    built = built_flags() & set(_FLAGS)
    shown = " ".join(sorted(built)) or "none"
    has = cpu_flags()
    if not has:
        return Check("cpu", "ok", f"ggml uses {shown}; what the CPU has is not known here")
    lacking = sorted(name for name in built if _FLAGS[name] not in has)
    if lacking:
        return Check(
            "cpu", "fail", f"ggml was built for {' '.join(lacking)}, which this CPU lacks",
            "build llama-cpp-python on this machine: pip install --no-cache-dir --force-reinstall "
            "--no-binary llama-cpp-python",
        )  # fmt: skip
    unused = [name for name in _WANTED if _FLAGS[name] in has and name not in built]
    if unused:
        return Check(
            "cpu", "warn", f"ggml uses {shown}; the CPU has {' '.join(unused)} too",
            "build llama-cpp-python on this machine, without GGML_NATIVE=OFF; AMX may have been "
            "left out because the compiler gets it wrong",
        )  # fmt: skip
    return Check("cpu", "ok", f"ggml uses {shown}")


def check_buffers() -> Check:
    """Tell where ggml puts weights of the common types."""
    places = {w: weight_buffer(parse_type(w), _N_EMBD, _N_ROWS) for w in _WEIGHTS}
    return Check("buffers", "ok", ", ".join(f"{w} in {p}" for w, p in places.items()))


def check_scan() -> Check:
    """Tell which kernel scans the whole head."""
    found = native.lib().vt_scan_kernel(0)
    kernel = native.ffi.string(found).decode()
    if kernel == "scalar":
        return Check(
            "scan", "warn", "the portable kernel scans the LM head",
            "exact mode is slower on CPUs without AVX2 or the dot product of ARMv8.2",
        )  # fmt: skip
    return Check("scan", "ok", f"kernel {kernel}")
