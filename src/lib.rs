//! A content-addressable blob store for container images.
