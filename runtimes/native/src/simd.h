// PP_SIMD marks a loop the compiler shall build once per vector width and choose at load time.
#ifndef POCKETPRIOR_SRC_SIMD_H_
#define POCKETPRIOR_SRC_SIMD_H_

#include <cstddef>  // defines __GLIBC__ where it applies

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define PP_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define PP_SIMD
#endif

#if defined(__GNUC__)
#define PP_INLINE inline __attribute__((always_inline))
#else
#define PP_INLINE inline
#endif

#endif  // POCKETPRIOR_SRC_SIMD_H_
