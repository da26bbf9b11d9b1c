//! Two streams by the SHA instructions of x86, whose order in the rounds is that of Intel's manual.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
    _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
    _mm_shuffle_epi32,
};

use super::BLOCK;

/// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4,
/// section 4.2.2).
#[rustfmt::skip]
const K: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// Whether this processor has the instructions.
pub(super) fn is_here() -> bool {
    is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1")
}

/// Takes in as many blocks of two streams, of both as many.
pub(super) fn compress_both(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    assert!(is_here(), "whoever calls this has looked");
    // SAFETY: the processor has the instructions that the function is compiled for.
    #[expect(unsafe_code, reason = "the compiler cannot know the processor")]
    unsafe {
        rounds(states, blocks);
    }
}

#[target_feature(enable = "sha,sse4.1")]
fn rounds(states: [&mut [u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    let [one, other] = states;
    let mut now = [load(one), load(other)];
    for (one, other) in blocks[0].iter().zip(blocks[1]) {
        let before = now;
        let mut words = [words(one), words(other)];
        // Written out, for a loop that the compiler keeps would put the words into memory.
        macro_rules! four_rounds {
            ($round:literal, $at:literal) => {
                let k = _mm_set_epi32(
                    K[$round + 3].cast_signed(),
                    K[$round + 2].cast_signed(),
                    K[$round + 1].cast_signed(),
                    K[$round].cast_signed(),
                );
                for (words, [abef, cdgh]) in words.iter_mut().zip(&mut now) {
                    if $round >= 16 {
                        let [a, b, c] =
                            [words[($at + 1) % 4], words[($at + 2) % 4], words[($at + 3) % 4]];
                        let sum = _mm_add_epi32(
                            _mm_sha256msg1_epu32(words[$at], a),
                            _mm_alignr_epi8::<4>(c, b),
                        );
                        words[$at] = _mm_sha256msg2_epu32(sum, c);
                    }
                    let sum = _mm_add_epi32(words[$at], k);
                    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, sum);
                    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0E>(sum));
                }
            };
        }
        macro_rules! sixteen_rounds {
            ($a:literal, $b:literal, $c:literal, $d:literal) => {
                four_rounds!($a, 0);
                four_rounds!($b, 1);
                four_rounds!($c, 2);
                four_rounds!($d, 3);
            };
        }
        sixteen_rounds!(0, 4, 8, 12);
        sixteen_rounds!(16, 20, 24, 28);
        sixteen_rounds!(32, 36, 40, 44);
        sixteen_rounds!(48, 52, 56, 60);
        for (now, before) in now.as_flattened_mut().iter_mut().zip(before.as_flattened()) {
            *now = _mm_add_epi32(*now, *before);
        }
    }
    store(one, now[0]);
    store(other, now[1]);
}

/// The state in the order in which the instructions want it: a, b, e, f and c, d, g, h.
#[target_feature(enable = "sha,sse4.1")]
fn load(state: &[u32; 8]) -> [__m128i; 2] {
    let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
    [_mm_set_epi32(a, b, e, f), _mm_set_epi32(c, d, g, h)]
}

#[target_feature(enable = "sha,sse4.1")]
fn store(state: &mut [u32; 8], [abef, cdgh]: [__m128i; 2]) {
    let words = |it| {
        [
            _mm_extract_epi32::<3>(it),
            _mm_extract_epi32::<2>(it),
            _mm_extract_epi32::<1>(it),
            _mm_extract_epi32::<0>(it),
        ]
    };
    let ([a, b, e, f], [c, d, g, h]) = (words(abef), words(cdgh));
    *state = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
}

/// The words of a block, whose bytes are in the other order.
#[target_feature(enable = "sha,sse4.1")]
fn words(block: &[u8; BLOCK]) -> [__m128i; 4] {
    let order = _mm_set_epi64x(0x0C0D_0E0F_0809_0A0B, 0x0405_0607_0001_0203);
    let (sixteens, _) = block.as_chunks::<16>();
    std::array::from_fn(|n| {
        let (halves, _) = sixteens[n].as_chunks::<8>();
        let [low, high] = [halves[0], halves[1]].map(i64::from_le_bytes);
        _mm_shuffle_epi8(_mm_set_epi64x(high, low), order)
    })
}
