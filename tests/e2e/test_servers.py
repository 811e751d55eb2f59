#!/usr/bin/python3
"""Servers with data in memory: saved, killed, restarted; the data is there, and new clients are served."""
import hashlib
import os
import socket
import subprocess
import unittest

from harness import ProgramTest, Redis, find_program, free_port, wait_for


def value_of(i):
    return hashlib.sha256(str(i).encode()).hexdigest() * 8


class RedisServer(ProgramTest):
    def start(self, *more):
        self.port = free_port()
        self.box.launch("redis", find_program("redis-server"), "--port", self.port, "--save", "", "--appendonly", "no",
                        "--dir", self.box.dir, *more)
        wait_for("Redis answers", lambda: Redis.ready(self.port))
        return Redis(self.port)

    def fill(self, client, count):
        for i in range(count):
            client("SET", f"key{i}", value_of(i))

    def test_data_survives(self):
        client = self.start()
        self.fill(client, 5000)
        client("RPUSH", "list", *range(1000))
        client("HSET", "hash", "field", "value")
        self.box.save_and_kill("redis")
        self.box.restart("redis")
        with self.assertRaises((ConnectionError, RuntimeError, OSError)):
            client("PING")  # the client of before was not saved: its connection is closed
        client = Redis(self.port)
        self.assertEqual(client("DBSIZE"), 5002)
        for i in range(0, 5000, 7):
            self.assertEqual(client("GET", f"key{i}"), value_of(i).encode())
        self.assertEqual(client("LLEN", "list"), 1000)
        self.assertEqual(client("HGET", "hash", "field"), b"value")
        client("SET", "after", "written")
        self.assertEqual(client("GET", "after"), b"written")

    def test_clients_survive_a_checkpoint(self):
        client = self.start()
        self.fill(client, 2000)
        for _ in range(5):
            self.box.stasis("checkpoint", "redis")
            self.assertEqual(client("PING"), b"PONG")
        self.assertEqual(client("GET", "key1999"), value_of(1999).encode())

    def test_allocator_gives_memory_back(self):
        """jemalloc discards with madvise and relies on zeros: old data coming back would corrupt it."""
        client = self.start()
        self.fill(client, 40000)
        self.box.save_and_kill("redis")
        self.box.restart("redis")
        server = self.box.session("redis")["processes"][0]["host_pid"]
        with open(f"/proc/{server}/status") as status:
            self.assertIn("Seccomp:\t2\n", status.read(), "its memory was read, not mapped: this proves nothing")
        client = Redis(self.port)
        for i in range(0, 40000):
            if i % 10:
                client("DEL", f"key{i}")
        client("MEMORY", "PURGE")
        for i in range(50000, 80000):
            client("SET", f"key{i}", value_of(i))
        client("MEMORY", "PURGE")
        for i in list(range(0, 40000, 10)) + list(range(50000, 80000, 3)):
            self.assertEqual(client("GET", f"key{i}"), value_of(i).encode())
        try:
            self.assertIn(b"OK", client("DEBUG", "RELOAD", "NOSAVE", "NOFLUSH") or b"OK")
        except RuntimeError:
            pass  # DEBUG is not allowed in every build
        self.assertEqual(client("DBSIZE"), 34000)

    def test_background_save_after_a_restart(self):
        client = self.start()
        self.fill(client, 3000)
        self.box.save_and_kill("redis")
        self.box.restart("redis")
        client = Redis(self.port)
        client("BGSAVE")  # forks a child that writes the file
        wait_for("the file is written",
                 lambda: b"rdb_bgsave_in_progress:0" in client("INFO", "persistence"))
        self.assertIn(b"rdb_last_bgsave_status:ok", client("INFO", "persistence"))
        self.assertGreater((self.box.dir / "dump.rdb").stat().st_size, 100000)

    def test_three_generations_and_two_ages(self):
        client = self.start()
        for generation in range(3):
            client("SET", "generation", generation)
            client("INCR", "count")
            self.box.save_and_kill("redis")
            self.box.restart("redis")
            client = Redis(self.port)
            self.assertEqual(client("GET", "generation"), str(generation).encode())
            self.assertEqual(client("GET", "count"), str(generation + 1).encode())


class PostgreSQL(ProgramTest):
    def setUp(self):
        super().setUp()
        if os.getuid() == 0 and not self.box.user:
            self.skipTest("PostgreSQL does not run as root")
        self.psql_program = find_program("psql")
        data = self.box.dir / "data"
        self.box.run(find_program("initdb"), "-D", data, "-A", "trust", "-U", "tester", "--no-sync", timeout=60)
        self.port = free_port()
        self.box.launch("postgres", find_program("postgres"), "-D", data, "-k", self.box.dir, "-p", self.port, "-h",
                        "127.0.0.1", "-c", "fsync=off", "-c", "shared_buffers=16MB")
        wait_for("PostgreSQL answers", lambda: self.psql("select 1", check=False).returncode == 0)

    def psql(self, query, check=True):
        return self.box.run(self.psql_program, "-h", self.box.dir, "-p", self.port, "-U", "tester", "-d", "postgres",
                            "-Atc", query, check=check)

    def test_tables_survive(self):
        self.psql("create table t as select i, md5(i::text) as m from generate_series(1, 50000) i")
        before = self.psql("select sum(i), md5(string_agg(m, '' order by i)) from t").stdout
        self.box.save_and_kill("postgres")
        self.box.restart("postgres")
        self.assertEqual(self.psql("select sum(i), md5(string_agg(m, '' order by i)) from t").stdout, before)
        self.psql("insert into t select i, md5(i::text) from generate_series(50001, 60000) i")
        self.assertEqual(self.psql("select count(*) from t").stdout.strip(), "60000")
        self.psql("checkpoint")

    def test_transaction_of_a_client_outside_is_rolled_back(self):
        """Its connection is cut, as when the client dies."""
        self.psql("create table t (i int); insert into t values (1)")
        with self.client("begin; insert into t values (2); select 'inserted';\n") as client:
            self.assertIn("inserted", self.await_line(client, "inserted"))
            self.box.stasis("checkpoint", "postgres")
            client.stdin.write("select 'goes on';\n")
            client.stdin.flush()
            self.await_line(client, "goes on")
            self.box.save_and_kill("postgres")
        self.box.restart("postgres")
        self.assertEqual(self.psql("select i from t").stdout.split(), ["1"])
        self.psql("drop table t")  # nobody has a lock on it

    def client(self, text):
        line = self.box.line([self.psql_program, "-h", self.box.dir, "-p", self.port, "-U", "tester", "-d", "postgres",
                              "-At"])
        client = subprocess.Popen(line, env=self.box.env, cwd=self.box.dir, stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        client.stdin.write(text)
        client.stdin.flush()
        return client

    def await_line(self, client, text):
        for line in client.stdout:
            if text in line:
                return line
        raise AssertionError(f"the client did not show {text}")


class PostgreSQLWithItsClient(ProgramTest):
    def test_transaction_goes_on(self):
        """Server and client in one session: an open transaction is committed after the restart."""
        if os.getuid() == 0 and not self.box.user:
            self.skipTest("PostgreSQL does not run as root")
        data, port, psql = self.box.dir / "data", free_port(), find_program("psql")
        self.box.run(find_program("initdb"), "-D", data, "-A", "trust", "-U", "tester", "--no-sync", timeout=60)
        script = self.box.write("session.sh", f"""#!/bin/sh
            {find_program("postgres")} -D {data} -k {self.box.dir} -p {port} -h '' -c fsync=off -c shared_buffers=16MB &
            psql="{psql} -h {self.box.dir} -p {port} -U tester -d postgres -At"
            until $psql -c 'select 1' > /dev/null 2>&1; do sleep 0.1; done
            mkfifo commands
            exec 3<> commands
            $psql < commands > answers 2>&1 &
            client=$!
            echo "create table t (i int); insert into t values (1);" >&3
            echo "begin; insert into t select generate_series(2, 1000); select 'inserted', count(*) from t;" >&3
            wait $client
            exec sleep 1000
        """)
        self.box.launch("both", script)
        answers = self.box.dir / "answers"
        ask = self.box.dir / "commands"
        wait_for("the transaction is open", lambda: answers.exists() and "inserted|1000" in answers.read_text())
        self.box.save_and_kill("both")
        self.box.restart("both")
        with open(ask, "w") as commands:
            commands.write("insert into t values (1001); commit; select 'committed', count(*), sum(i) from t;\n")
        wait_for("the transaction is committed", lambda: f"committed|1001|{1001 * 501}" in answers.read_text())
        again = self.box.run(psql, "-h", self.box.dir, "-p", port, "-U", "tester", "-d", "postgres", "-Atc",
                             "select count(*) from t")
        self.assertEqual(again.stdout.strip(), "1001")


class NodeServer(ProgramTest):
    def test_state_and_timers(self):
        port = free_port()
        script = self.box.write("server.js", """
            const http = require('http');
            let count = 0, ticks = 0;
            const cache = {};
            for (let i = 0; i < 20000; ++i) cache['k' + i] = 'v' + i * 7;
            setInterval(() => ++ticks, 20);
            http.createServer((request, response) => {
              ++count;
              const key = request.url.slice(1);
              response.end(JSON.stringify({count, ticks, value: cache[key]}));
            }).listen(%d, '127.0.0.1');
        """ % port)
        self.box.launch("node", find_program("node"), script)
        self.get(port, "k1", wait=True)
        before = self.get(port, "k100")
        self.assertEqual(before["value"], "v700")
        self.box.save_and_kill("node")
        self.box.restart("node")
        after = self.get(port, "k19999", wait=True)
        self.assertEqual(after["value"], f"v{19999 * 7}")
        self.assertGreater(after["count"], before["count"])
        wait_for("its timer runs", lambda: self.get(port, "k1")["ticks"] > after["ticks"] + 3)

    def get(self, port, key, wait=False):
        import json
        import urllib.request

        def once():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{key}", timeout=5) as answer:
                    return json.loads(answer.read())
            except OSError:
                if not wait:
                    raise
                return None

        return wait_for("node answers", once) if wait else once()


class JavaServer(ProgramTest):
    SOURCE = """
        import java.io.*; import java.net.*; import java.util.*; import java.util.concurrent.*;
        public class Server {
          public static void main(String[] args) throws Exception {
            Map<Integer, String> map = new ConcurrentHashMap<>();
            for (int i = 0; i < 100000; ++i) map.put(i, "value" + i * 3);
            Thread churn = new Thread(() -> { long n = 0; while (true) { byte[] b = new byte[1 << 16]; b[7] = 1; n += b[7];
              try { Thread.sleep(1); } catch (InterruptedException e) { return; } } });
            churn.setDaemon(true); churn.start();
            ServerSocket server = new ServerSocket(Integer.parseInt(args[0]), 10, InetAddress.getByName("127.0.0.1"));
            while (true) try (Socket s = server.accept()) {
              String line = new BufferedReader(new InputStreamReader(s.getInputStream())).readLine();
              if (line != null && line.equals("gc")) { System.gc(); line = "1"; }
              s.getOutputStream().write((map.get(Integer.parseInt(line)) + "\\n").getBytes());
            } catch (Exception e) { }
          }
        }"""

    def ask(self, port, text):
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
                connection.sendall(text.encode() + b"\n")
                return connection.makefile().readline().strip()
        except OSError:
            return ""

    def test_heap_survives_and_is_collected(self):
        source = self.box.write("Server.java", self.SOURCE)
        self.box.run(find_program("javac"), "-d", self.box.dir, source, timeout=120)
        port = free_port()
        self.box.launch("java", find_program("java"), "-Xmx200m", "-cp", self.box.dir, "Server", port)
        wait_for("Java answers", lambda: self.ask(port, "5") == "value15", 60)
        self.box.save_and_kill("java")
        self.box.restart("java")
        wait_for("Java answers", lambda: self.ask(port, "99999") == f"value{99999 * 3}")
        for _ in range(3):
            self.assertEqual(self.ask(port, "gc"), "value3")
        for i in range(0, 100000, 9973):
            self.assertEqual(self.ask(port, str(i)), f"value{i * 3}")


if __name__ == "__main__":
    unittest.main()
