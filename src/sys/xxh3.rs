//! XXH3 of 64 bits without a seed (the xxHash specification, "XXH3 Algorithm Overview").
//!
//! A read from a warm page cache is slowed down by nothing but this. The crate twox-hash has it for AVX2; with
//! AVX-512 a page takes two thirds of the time, and no published crate chooses that when it runs.

use twox_hash::XxHash3_64;

/// The sum of some bytes.
pub(crate) fn xxh3(bytes: &[u8]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    if let Ok(page) = bytes.try_into()
        && x86::is_here()
    {
        return x86::of_page(page);
    }
    XxHash3_64::oneshot(bytes)
}

#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_that_of_the_specification_whatever_the_length() {
        // Of the 32 bits in the middle of a product all bytes come to be; a page begins anywhere.
        let bytes: Vec<u8> =
            (0..30_000u32).map(|n| (n.wrapping_mul(0x9E37_79B1) >> 13) as u8).collect();
        for len in [0, 1, 240, 241, 1024, 4095, 4096, 4097, 16_384] {
            for start in [0, 1, 63, 64, 5000] {
                let bytes = &bytes[start..start + len];
                assert_eq!(xxh3(bytes), XxHash3_64::oneshot(bytes), "{len} bytes from {start} on");
            }
        }
        for fill in [0, 0xFF] {
            assert_eq!(xxh3(&[fill; 4096]), XxHash3_64::oneshot(&[fill; 4096]), "{fill}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_bit_of_a_page_counts(bit in 0_usize..4096 * 8, fill: u8) {
            let mut page = [fill; 4096];
            let before = xxh3(&page);
            page[bit / 8] ^= 1 << (bit % 8);
            proptest::prop_assert_ne!(xxh3(&page), before);
            proptest::prop_assert_eq!(xxh3(&page), XxHash3_64::oneshot(&page));
        }
    }
}
