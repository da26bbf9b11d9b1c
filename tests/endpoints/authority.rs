//! A certificate authority of the test's own, and TLS in front of a registry.
#![allow(dead_code, reason = "tests/hostile uses a part of it")]

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion, crypto, version,
};

pub(crate) struct Authority {
    pub(crate) pem: String,
    der: rcgen::Certificate,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
pub(crate) struct Pair {
    pub(crate) cert: String,
    pub(crate) key: String,
    chain: rcgen::Certificate,
    private: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap();
        Authority { pem: der.pem(), der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn certify(&self, host: &str) -> Pair {
        self.certify_until(host, 2100)
    }

    pub(crate) fn certify_until(&self, host: &str, year: i32) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let chain = params.signed_by(&key, &self.issuer).unwrap();
        Pair::new(chain, &key)
    }
}

impl Pair {
    fn new(chain: rcgen::Certificate, key: &KeyPair) -> Pair {
        let private = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        Pair { cert: chain.pem(), key: key.serialize_pem(), chain, private }
    }

    pub(crate) fn self_signed(host: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        Pair::new(params.self_signed(&key).unwrap(), &key)
    }
}

/// What a front asks of those who connect to it.
pub(crate) struct Front {
    pub(crate) pair: Pair,
    /// The address of this machine to be reached at.
    pub(crate) host: &'static str,
    /// The port there; any that is free where it is 0.
    pub(crate) port: u16,
    /// Whose certificates clients must have.
    pub(crate) clients: Option<Authority>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
}

impl Front {
    pub(crate) fn new(pair: Pair) -> Front {
        Front {
            pair,
            host: "127.0.0.1",
            port: 0,
            clients: None,
            versions: vec![&version::TLS13, &version::TLS12],
        }
    }

    /// Takes connections with TLS for a server without, and says at which port of this machine.
    pub(crate) fn start(self, backend: &str) -> Running {
        let backend: SocketAddr = backend.parse().unwrap();
        let provider = Arc::new(crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&self.versions)
            .unwrap();
        let builder = match self.clients {
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der.der().clone()).unwrap();
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
            None => builder.with_no_client_auth(),
        };
        let chain = vec![self.pair.chain.der().clone()];
        let config = builder.with_single_cert(chain, self.pair.private).unwrap();
        Running::new((self.host, self.port), TlsAcceptor::from(Arc::new(config)), backend)
    }
}

/// A front at work; it ends when it is dropped.
pub(crate) struct Running {
    pub(crate) port: u16,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Running {
    fn new(address: (&str, u16), acceptor: TlsAcceptor, backend: SocketAddr) -> Running {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let Ok(mut client) = acceptor.accept(stream).await else { return };
                    let mut server = TcpStream::connect(backend).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Running { port: address.port(), address, runtime: Some(runtime) }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
