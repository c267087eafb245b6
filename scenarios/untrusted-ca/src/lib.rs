//! untrusted-ca
