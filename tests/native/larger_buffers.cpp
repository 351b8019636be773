// Preloaded into a test: weights in ggml's repacked layouts need more bytes than their rows have, as AMX tiles do.
#include <dlfcn.h>
#include <ggml-backend.h>
#include <link.h>

#include <cstring>

namespace {

constexpr size_t MORE = 8192;  // bytes, beyond what any caller may have added by chance

// the library is loaded locally by Python, so its symbols are found in itself only
int find_base(dl_phdr_info * info, size_t, void * out) {
    if (strstr(info->dlpi_name, "libggml-base") == nullptr) {
        return 0;
    }
    *static_cast<void **>(out) = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
    return 1;
}

template <typename F> F * real(const char * name) {
    void * base = nullptr;
    dl_iterate_phdr(find_base, &base);
    return reinterpret_cast<F *>(dlsym(base, name));
}

}  // namespace

extern "C" size_t ggml_backend_buft_get_alloc_size(ggml_backend_buffer_type_t buft, const ggml_tensor * tensor) {
    static const auto size_of     = real<decltype(ggml_backend_buft_get_alloc_size)>("ggml_backend_buft_get_alloc_size");
    static const auto name_of     = real<decltype(ggml_backend_buft_name)>("ggml_backend_buft_name");
    const bool        is_repacked = strcmp(name_of(buft), "CPU_REPACK") == 0 || strcmp(name_of(buft), "AMX") == 0;
    return size_of(buft, tensor) + (is_repacked ? MORE : 0);
}
