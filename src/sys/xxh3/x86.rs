//! XXH3 of a page of 4 KiB by AVX-512, whose register has the eight lanes of the hash.

use std::arch::x86_64::{
    __m512i, _mm512_add_epi64, _mm512_loadu_epi64, _mm512_mul_epu32, _mm512_mullo_epi64,
    _mm512_set1_epi64, _mm512_shuffle_epi32, _mm512_srli_epi64, _mm512_storeu_epi64,
    _mm512_xor_si512,
};

const PAGE: usize = 4096;
const STRIPE: usize = 64;
/// A block has as many stripes as there are places for them in the secret, each of 8 bytes.
const STRIPES: usize = 16;

const PRIME32: [u64; 3] = [0x9E37_79B1, 0x85EB_CA77, 0xC2B2_AE3D];
const PRIME64: [u64; 5] = [
    0x9E37_79B1_85EB_CA87,
    0xC2B2_AE3D_27D4_EB4F,
    0x1656_67B1_9E37_79F9,
    0x85EB_CA77_C2B2_AE63,
    0x27D4_EB2F_1656_67C5,
];
const START: [u64; 8] = [
    PRIME32[2], PRIME64[0], PRIME64[1], PRIME64[2], PRIME64[3], PRIME32[1], PRIME64[4], PRIME32[0],
];

/// The default secret, as eight bytes each, the first the highest.
#[rustfmt::skip]
const SECRET_WORDS: [u64; 24] = [
    0xb8fe_6c39_23a4_4bbe, 0x7c01_812c_f721_ad1c, 0xded4_6de9_8390_97db, 0x7240_a4a4_b7b3_671f,
    0xcb79_e64e_ccc0_e578, 0x825a_d07d_ccff_7221, 0xb808_4674_f743_248e, 0xe035_90e6_813a_264c,
    0x3c28_52bb_91c3_00cb, 0x88d0_658b_1b53_2ea3, 0x7164_4897_a20d_f94e, 0x3819_ef46_a9de_acd8,
    0xa8fa_763f_e39c_343f, 0xf9dc_bbc7_c70b_4f1d, 0x8a51_e04b_cdb4_5931, 0xc89f_7ec9_d978_7364,
    0xeac5_ac83_34d3_ebc3, 0xc581_a0ff_fa13_63eb, 0x170d_dd51_b7f0_da49, 0xd316_5526_29d4_689e,
    0x2b16_be58_7d47_a1fc, 0x8ff8_b8d1_7ad0_31ce, 0x45cb_3a8f_9516_0428, 0xafd7_fbca_bb4b_407e,
];
const SECRET: [u8; 192] = secret();
/// Where the secret is for the end of a block, the last stripe, and the merging of the lanes.
const SCRAMBLE: usize = 192 - STRIPE;
const LAST: usize = 192 - STRIPE - 7;
const MERGE: usize = 11;

const fn secret() -> [u8; 192] {
    let mut bytes = [0; 192];
    let mut n = 0;
    while n < bytes.len() {
        bytes[n] = SECRET_WORDS[n / 8].to_be_bytes()[n % 8];
        n += 1;
    }
    bytes
}

/// Whether this processor has the instructions.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512dq")
}

pub(super) fn of_page(page: &[u8; PAGE]) -> u64 {
    assert!(is_here(), "whoever calls this has looked");
    // SAFETY: the processor has the instructions that the function is compiled for.
    #[expect(unsafe_code, reason = "the compiler cannot know the processor")]
    let lanes = unsafe { lanes(page) };
    merge(&lanes)
}

#[target_feature(enable = "avx512f,avx512dq")]
fn lanes(page: &[u8; PAGE]) -> [u64; 8] {
    let mut lanes = words(&START);
    let (stripes, _) = page.as_chunks::<STRIPE>();
    let (blocks, last) = stripes.split_at(3 * STRIPES);
    for block in blocks.chunks_exact(STRIPES) {
        for (n, stripe) in block.iter().enumerate() {
            lanes = take(lanes, stripe, 8 * n);
        }
        let mixed = _mm512_xor_si512(lanes, _mm512_srli_epi64::<47>(lanes));
        let mixed = _mm512_xor_si512(mixed, load(secret_at(SCRAMBLE)));
        lanes = _mm512_mullo_epi64(mixed, _mm512_set1_epi64(PRIME32[0].cast_signed()));
    }
    // The last block is never full: its last stripe is the last of all, which has a place of its own.
    for (n, stripe) in last.iter().enumerate() {
        lanes = take(lanes, stripe, if n + 1 < last.len() { 8 * n } else { LAST });
    }
    let mut out = [0; 8];
    // SAFETY: there is room for eight lanes of 64 bits.
    #[expect(unsafe_code, reason = "a store takes a pointer")]
    unsafe {
        _mm512_storeu_epi64(out.as_mut_ptr(), lanes);
    }
    out.map(i64::cast_unsigned)
}

/// Takes in a stripe, with the secret from a place on.
#[target_feature(enable = "avx512f")]
fn take(lanes: __m512i, stripe: &[u8; STRIPE], secret: usize) -> __m512i {
    let data = load(stripe);
    let keyed = _mm512_xor_si512(data, load(secret_at(secret)));
    let product = _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed));
    let swapped = _mm512_shuffle_epi32::<0b01_00_11_10>(data);
    _mm512_add_epi64(_mm512_add_epi64(lanes, swapped), product)
}

/// The eight lanes from their least significant bytes on.
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; STRIPE]) -> __m512i {
    // SAFETY: these are 64 bytes, and their address may be any.
    #[expect(unsafe_code, reason = "a load takes a pointer")]
    unsafe {
        _mm512_loadu_epi64(bytes.as_ptr().cast())
    }
}

#[target_feature(enable = "avx512f")]
fn words(words: &[u64; 8]) -> __m512i {
    // SAFETY: these are 64 bytes, and their address may be any.
    #[expect(unsafe_code, reason = "a load takes a pointer")]
    unsafe {
        _mm512_loadu_epi64(words.as_ptr().cast())
    }
}

fn secret_at(at: usize) -> &'static [u8; STRIPE] {
    // Each place is a constant or at most that of the last stripe of a block, and so far from the end.
    SECRET[at..].first_chunk().unwrap_or(&[0; STRIPE])
}

fn merge(lanes: &[u64; 8]) -> u64 {
    let (secrets, _) = secret_at(MERGE).as_chunks::<8>();
    let mut keyed = [0; 8];
    for ((keyed, lane), secret) in keyed.iter_mut().zip(lanes).zip(secrets) {
        *keyed = lane ^ u64::from_le_bytes(*secret);
    }
    let (pairs, _) = keyed.as_chunks::<2>();
    let start = (PAGE as u64).wrapping_mul(PRIME64[0]);
    let sum = pairs.iter().fold(start, |sum, [one, other]| {
        let product = u128::from(*one) * u128::from(*other);
        // Its lower and its upper half.
        sum.wrapping_add(product as u64 ^ (product >> 64) as u64)
    });
    let sum = (sum ^ (sum >> 37)).wrapping_mul(0x1656_6791_9E37_79F9);
    sum ^ (sum >> 32)
}
