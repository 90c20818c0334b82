//! Kafka: one node that is broker and controller (`KRaft`).

use std::{fs, path::Path, process::Command};

use super::{
    Started, failed, install,
    process::{Running, ask, free_ports},
    write,
};
use crate::step::Failed;

/// 4.4.0 is listed, but a jar of it is missing.
const POM: &str = r#"<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>oncue</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.3.1</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>4.3.1</version>
      <exclusions><exclusion><groupId>org.apache.kafka</groupId><artifactId>connect-runtime</artifactId></exclusion></exclusions>
    </dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.4</version></dependency>
  </dependencies>
</project>
"#;
/// Any does, as long as a node keeps it.
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
/// `ApiVersions`, version 0, of client "": the smallest question that a broker answers.
const QUESTION: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0, 0];

pub(super) fn install() -> Result<(), Failed> {
    let place = install::place("kafka");
    let libraries = place.join("libs");
    if libraries.exists() {
        return Ok(());
    }
    fs::create_dir_all(&place).map_err(|error| failed(format!("{}: {error}", place.display())))?;
    write(&place.join("pom.xml"), POM)?;
    // Into another folder first: half of it is not taken for the whole.
    let (partial, mut maven) = (place.join("partial"), Command::new("mvn"));
    maven.current_dir(&place).args(["-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime"]);
    install::run(maven.arg(format!("-DoutputDirectory={}", partial.display())))?;
    fs::rename(&partial, &libraries).map_err(|error| failed(format!("{}: {error}", libraries.display())))
}

pub(super) fn start(folder: &Path, data: &Path) -> Result<Started, Failed> {
    let [port, controller] = free_ports()?;
    let config = folder.join("server.properties");
    write(&config, &properties(port, controller, data))?;
    if !data.join("log/meta.properties").exists() {
        let format = ["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"];
        install::run(java().args(format).arg(&config))?;
    }
    let process = Running::start(java().arg("kafka.Kafka").arg(&config).current_dir(folder), folder)?;
    // The answer repeats the number of the question, after its length.
    let answers = move || ask(port, &QUESTION).is_some_and(|answer| answer.get(4..8) == Some(&QUESTION[8..12]));
    Ok(Started { processes: vec![process], url: format!("kafka://127.0.0.1:{port}"), answers: Box::new(answers) })
}

fn java() -> Command {
    let mut java = Command::new("java");
    java.env("CLASSPATH", install::place("kafka").join("libs/*"));
    java.args(["-Xms128m", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]);
    java.args(["-Djava.net.preferIPv4Stack=true", "-Dorg.apache.logging.log4j.level=INFO"]);
    java
}

/// The cleaner would cost 140 MB.
fn properties(port: u16, controller: u16, data: &Path) -> String {
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={}
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
log.cleaner.enable=false
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
",
        data.join("log").display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_says_its_own_length() {
        let [a, b, c, d, ..] = QUESTION;
        assert_eq!(u32::from_be_bytes([a, b, c, d]) as usize, QUESTION.len() - 4);
    }
}
