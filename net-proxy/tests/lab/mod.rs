//! A node, its pods and a client outside, as network namespaces.
//!
//! ```text
//! outside 192.0.2.100 ── 192.0.2.1 node 10.200.K.1 ── 10.200.K.2 pod
//! ```

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use orlop_core::client::Client;
use orlop_core::env::{CancelToken, Env};
use orlop_core::resource::Resource;
use orlop_core::testing::FakeApi;
use orlop_net_proxy::{Proxy, ProxyConfig};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

const SERVICES: Resource = Resource::namespaced("", "v1", "services", "Service");
const SLICES: Resource =
    Resource::namespaced("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice");
/// How long somebody waits for an answer.
const PATIENCE: Duration = Duration::from_millis(700);

pub(crate) const NODE_IP: &str = "192.0.2.1";
pub(crate) const OUTSIDE_IP: &str = "192.0.2.100";
const PODS: [&str; 3] = ["a", "b", "c"];

/// Who answered, and whom they saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) server: String,
    pub(crate) client: IpAddr,
}

pub(crate) struct Lab {
    name: String,
    pub(crate) api: FakeApi,
    pub(crate) env: Env,
    stop: Arc<AtomicBool>,
}

pub(crate) struct Running {
    stop: CancelToken,
    done: tokio::task::JoinHandle<Proxy>,
}

impl Running {
    /// Ends the proxy as a restart does; its rules stay.
    pub(crate) async fn stop(self) -> Proxy {
        self.stop.cancel();
        self.done.await.unwrap()
    }
}

fn run(words: &str) -> Result<String, String> {
    let mut parts = words.split_whitespace();
    let output = Command::new(parts.next().unwrap()).args(parts).output();
    let output = output.map_err(|error| format!("{words}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!(
        "{words}: {}",
        String::from_utf8_lossy(&output.stderr)
    ))
}

impl Lab {
    /// Builds it, or says why not.
    pub(crate) fn new(test: &str) -> Option<Self> {
        let missing = if !rustix::process::geteuid().is_root() {
            Some("needs root".to_owned())
        } else {
            ["nft --version", "ip -V"]
                .iter()
                .find_map(|words| run(words).err())
        };
        let env = Env::tokio();
        let lab = Self {
            name: format!("orlop-{}-{test}", std::process::id()),
            api: FakeApi::new(env.clone()),
            env,
            stop: Arc::default(),
        };
        if let Some(why) = missing.or_else(|| lab.build().err()) {
            println!("skipped: {test}: {why}");
            return None;
        }
        Some(lab)
    }

    fn build(&self) -> Result<(), String> {
        let node = self.netns("node");
        for name in ["node", "outside"].iter().chain(&PODS) {
            run(&format!("ip netns add {}", self.netns(name)))?;
            run(&format!("ip -n {} link set lo up", self.netns(name)))?;
        }
        let links = PODS.iter().enumerate().map(|(index, pod)| {
            let net = index + 1;
            let four = (format!("10.200.{net}.1/24"), format!("10.200.{net}.2/24"));
            (
                *pod,
                four,
                (
                    format!("fd00:200:{net}::1/64"),
                    format!("fd00:200:{net}::2/64"),
                ),
            )
        });
        let outside = (
            "outside",
            ("192.0.2.1/24".to_owned(), "192.0.2.100/24".to_owned()),
            ("2001:db8::1/64".to_owned(), "2001:db8::100/64".to_owned()),
        );
        for (name, four, six) in links.chain([outside]) {
            let there = self.netns(name);
            run(&format!(
                "ip -n {node} link add to-{name} type veth peer name eth0 netns {there}"
            ))?;
            for (ns, link, addresses) in [
                (&node, format!("to-{name}"), [&four.0, &six.0]),
                (&there, "eth0".to_owned(), [&four.1, &six.1]),
            ] {
                run(&format!(
                    "ip -n {ns} address add {} dev {link}",
                    addresses[0]
                ))?;
                run(&format!(
                    "ip -n {ns} -6 address add {} dev {link} nodad",
                    addresses[1]
                ))?;
                run(&format!("ip -n {ns} link set {link} up"))?;
            }
            let gateway = |address: &str| address.split('/').next().unwrap().to_owned();
            run(&format!(
                "ip -n {there} route add default via {}",
                gateway(&four.0)
            ))?;
            run(&format!(
                "ip -n {there} -6 route add default via {}",
                gateway(&six.0)
            ))?;
        }
        // Addresses of Services are routed somewhere, as they are on a real node.
        run(&format!("ip -n {node} route add default via {OUTSIDE_IP}"))?;
        run(&format!(
            "ip -n {node} -6 route add default via 2001:db8::100"
        ))?;
        self.within("node", || {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            std::fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")
        })
        .map_err(|error| format!("forwarding: {error}"))
    }

    pub(crate) fn netns(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// Does something on a thread of a namespace.
    pub(crate) fn within<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let path = format!("/var/run/netns/{}", self.netns(name));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = File::open(path).unwrap();
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                work()
            });
            thread.join().unwrap()
        })
    }

    pub(crate) fn pod_ip(pod: &str) -> String {
        format!(
            "10.200.{}.2",
            PODS.iter().position(|known| *known == pod).unwrap() + 1
        )
    }

    pub(crate) fn pod_ip6(pod: &str) -> String {
        format!(
            "fd00:200:{}::2",
            PODS.iter().position(|known| *known == pod).unwrap() + 1
        )
    }

    /// Lets pods answer on TCP and UDP port 8080 with their name and whom they see. A TCP connection may ask again and again.
    pub(crate) fn pods_serve(&self, pods: &[&str]) {
        for pod in pods {
            let (name, stop) = ((*pod).to_owned(), self.stop.clone());
            let (tcp, udp) = self.within(pod, || {
                (
                    TcpListener::bind("[::]:8080").unwrap(),
                    UdpSocket::bind("[::]:8080").unwrap(),
                )
            });
            tcp.set_nonblocking(true).unwrap();
            udp.set_read_timeout(Some(Duration::from_millis(50)))
                .unwrap();
            let (tcp_name, tcp_stop) = (name.clone(), stop.clone());
            std::thread::spawn(move || {
                while !tcp_stop.load(Ordering::Relaxed) {
                    let Ok((stream, peer)) = tcp.accept() else {
                        std::thread::sleep(Duration::from_millis(5));
                        continue;
                    };
                    let name = tcp_name.clone();
                    std::thread::spawn(move || answer_all(stream, &name, peer.ip()));
                }
            });
            std::thread::spawn(move || {
                let mut buffer = [0; 64];
                while !stop.load(Ordering::Relaxed) {
                    if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                        let text = format!("{name} {}\n", peer.ip().to_canonical());
                        let _ = udp.send_to(text.as_bytes(), peer);
                    }
                }
            });
        }
    }

    /// Connects from a namespace.
    pub(crate) fn connect(&self, from: &str, to: &str) -> io::Result<TcpStream> {
        let to: SocketAddr = to.parse().unwrap();
        let stream = self.within(from, || TcpStream::connect_timeout(&to, PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(stream)
    }

    /// Asks once over a connection of its own.
    pub(crate) fn ask(&self, from: &str, to: &str) -> io::Result<Answer> {
        ask_again(&mut self.connect(from, to)?)
    }

    /// A socket that sends from one port only.
    pub(crate) fn udp(&self, from: &str, to: &str) -> UdpSocket {
        let to: SocketAddr = to.parse().unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = self.within(from, || {
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(to).unwrap();
            socket
        });
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// An endpoint that is ready, on this node.
    pub(crate) fn ready(&self, pod: &str) -> Value {
        json!({"addresses": [Self::pod_ip(pod)], "nodeName": "node"})
    }

    /// An endpoint that is ready, and said to be on another node.
    pub(crate) fn elsewhere(&self, pod: &str) -> Value {
        json!({"addresses": [Self::pod_ip(pod)], "nodeName": "other"})
    }

    pub(crate) async fn service(&self, name: &str, spec: Value) {
        self.put(
            &SERVICES,
            name,
            json!({"metadata": {"name": name}, "spec": spec}),
        )
        .await;
    }

    pub(crate) async fn service_with_status(&self, name: &str, spec: Value, status: Value) {
        let object = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        self.put(&SERVICES, name, object).await;
    }

    /// Endpoints on port 8080, of TCP and UDP.
    pub(crate) async fn slice(&self, service: &str, endpoints: Value) {
        self.slice_of(service, "IPv4", endpoints).await;
    }

    pub(crate) async fn slice_of(&self, service: &str, family: &str, endpoints: Value) {
        let object = json!({
            "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
            "addressType": family,
            "ports": [{"port": 8080, "protocol": "TCP"}, {"port": 8080, "protocol": "UDP"}, {"port": 8080, "protocol": "SCTP"}], "endpoints": endpoints,
        });
        self.put(&SLICES, service, object).await;
    }

    async fn put(&self, resource: &Resource, name: &str, mut object: Value) {
        let client = self.api.client();
        let requests = client.resource(resource).namespace("ns");
        match requests.find(name).await.unwrap() {
            None => drop(requests.create(&object).await.unwrap()),
            Some(known) => {
                object["metadata"]["resourceVersion"] = known.revision().to_string().into();
                requests.update(&object).await.unwrap();
            }
        }
    }

    /// Starts a proxy for the node.
    pub(crate) fn start(&self, change: impl FnOnce(&mut ProxyConfig)) -> Running {
        let mut config = ProxyConfig::new("node");
        config.node_ips = vec![NODE_IP.parse().unwrap(), "2001:db8::1".parse().unwrap()];
        config.cluster_cidrs = vec![
            "10.200.0.0/16".parse().unwrap(),
            "fd00:200::/32".parse().unwrap(),
        ];
        config.min_sync_period = Duration::from_millis(20);
        config.sync_period = Duration::from_secs(1);
        config.manage_sysctls = false;
        (config.healthz_address, config.metrics_address) = (None, None);
        config.command_prefix = ["ip", "netns", "exec"].map(str::to_owned).to_vec();
        config.command_prefix.push(self.netns("node"));
        change(&mut config);
        let client: Arc<dyn Client> = self.api.client();
        let mut proxy = Proxy::builder(client, self.env.clone())
            .config(config)
            .build()
            .unwrap();
        let stop = CancelToken::new();
        let token = stop.clone();
        #[allow(clippy::disallowed_methods)] // A test's own runtime.
        let done = tokio::spawn(async move {
            proxy.run(&token).await.unwrap();
            proxy
        });
        Running { stop, done }
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..100 {
            if tokio::task::block_in_place(&mut holds) {
                return;
            }
            self.env.sleep(Duration::from_millis(50)).await;
        }
        panic!(
            "never: {what}\n{}",
            self.nft("list ruleset").unwrap_or_else(|error| error)
        );
    }

    /// Runs nft on the node.
    pub(crate) fn nft(&self, words: &str) -> Result<String, String> {
        run(&format!("ip netns exec {} nft {words}", self.netns("node")))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for name in ["node", "outside"].iter().chain(&PODS) {
            let _ = run(&format!("ip netns delete {}", self.netns(name)));
        }
    }
}

fn answer_all(mut stream: TcpStream, name: &str, peer: IpAddr) {
    let _ = stream.set_nonblocking(false);
    let mut one = [0; 1];
    while matches!(stream.read(&mut one), Ok(1)) {
        let text = format!("{name} {}\n", peer.to_canonical());
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

/// Asks over a connection that is there.
pub(crate) fn ask_again(stream: &mut TcpStream) -> io::Result<Answer> {
    stream.write_all(b"?")?;
    let mut text = Vec::new();
    let mut one = [0; 1];
    while text.last() != Some(&b'\n') {
        stream.read_exact(&mut one)?;
        text.extend(one);
    }
    parse(&text)
}

/// Asks by a datagram.
pub(crate) fn ask_udp(socket: &UdpSocket) -> io::Result<Answer> {
    socket.send(b"?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    parse(&buffer[..length])
}

fn parse(text: &[u8]) -> io::Result<Answer> {
    let text = String::from_utf8_lossy(text);
    let (server, client) = text.trim().split_once(' ').ok_or(ErrorKind::InvalidData)?;
    Ok(Answer {
        server: server.to_owned(),
        client: client.parse().map_err(|_| ErrorKind::InvalidData)?,
    })
}
