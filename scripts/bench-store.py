#!/usr/bin/env python3
"""The rows of a data folder in other engines, asked the same question: the 20 edges of most bytes.

Usage: bench-store.py FOLDER WORK SUMS ENGINE; FOLDER as `bench-history fill` left it, WORK a folder for the engine's
files, SUMS what `weir-bench-store top --sums` found, against which the answer is held. ENGINE is sqlite, duckdb, clickhouse,
duckdb-files or clickhouse-files (the last two read the segments as they are). Times are medians of five questions.
"""
import json, os, resource, sqlite3, statistics, sys, time

folder, work, engine = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2]), sys.argv[4]
expected = json.load(open(sys.argv[3]))
until, rows = map(int, open(os.path.join(folder, "until")).read().split())
segments = os.path.join(folder, "segments", "*.settled.parquet")
HOUR = 3_600_000_000_000
COLUMNS = """window_start from_time to_time connection edge view node protocol net_ns client_address client_port client_kind
client_namespace client_name server_address server_port server_kind server_namespace server_name process container_id
sent_bytes recv_bytes retransmits opened closed failure rtt_us started counted late""".split()
NAMES = "client_namespace, client_name, server_namespace, server_name, server_port, protocol"
os.makedirs(work, exist_ok=True)


def question(table, to, since):
    return (
        f"SELECT {NAMES}, sum(sent_bytes + recv_bytes) AS bytes, sum(retransmits) AS retransmits, sum(opened) AS opened, "
        f"avg(rtt_us) AS rtt FROM {table} WHERE counted AND {to} >= {since} AND {to} < {to_until} "
        f"GROUP BY {NAMES} ORDER BY bytes DESC LIMIT 20"
    )


def sqlite(ask):
    import duckdb

    path = os.path.join(work, "sqlite.db")
    if not os.path.exists(path):
        began = time.monotonic()
        database = sqlite3.connect(path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute(f"CREATE TABLE history ({', '.join(COLUMNS)})")
        duck = duckdb.connect()
        duck.sql("SET threads = 2")
        times = ("window_start", "from_time", "to_time", "started")
        columns = ", ".join(f"epoch_ns({name}) AS {name}" if name in times else name for name in COLUMNS)
        result = duck.execute(f"SELECT {columns} FROM '{segments}'")
        places = ", ".join("?" * len(COLUMNS))
        while some := result.fetchmany(50_000):
            with database:
                database.executemany(f"INSERT INTO history VALUES ({places})", some)
        database.execute("CREATE INDEX history_to ON history (to_time)")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        database.close()
        loaded("SQLite", time.monotonic() - began, os.path.getsize(path))
    database = sqlite3.connect(path)
    ask("SQLite", lambda since: database.execute(question("history", "to_time", since)).fetchall())


def duckdb_of(path):
    import duckdb

    duck = duckdb.connect(path)
    duck.sql("SET threads = 2")
    duck.sql("SET TimeZone = 'UTC'")
    return duck


def duck_question(table, since):
    return (
        question(table, "to_time", "make_timestamp_ns(%d)::TIMESTAMPTZ" % since)
        .replace(str(to_until), "make_timestamp_ns(%d)::TIMESTAMPTZ" % until)
        .replace("sum(opened)", "sum(opened::INT)")
    )


def duckdb(ask):
    path = os.path.join(work, "duck.db")
    if not os.path.exists(path):
        began = time.monotonic()
        duck = duckdb_of(path)
        duck.sql(f"CREATE TABLE history AS SELECT {', '.join(COLUMNS)} FROM '{segments}'")
        duck.close()
        loaded("DuckDB", time.monotonic() - began, os.path.getsize(path))
    duck = duckdb_of(path)
    ask("DuckDB, its own table", lambda since: duck.sql(duck_question("history", since)).fetchall())


def duckdb_files(ask):
    duck = duckdb_of(":memory:")
    ask("DuckDB on weir's files", lambda since: duck.sql(duck_question(f"'{segments}'", since)).fetchall())


def clickhouse_session(path):
    from chdb import session

    return session.Session(path)


def clickhouse_rows(answer):
    return [
        tuple(int(value) if name in ("bytes", "retransmits", "opened") else value for name, value in row.items())
        for row in map(json.loads, str(answer).splitlines())
    ]


def clickhouse_question(table, since):
    return question(table, "to_time", f"fromUnixTimestamp64Nano({since})").replace(
        str(to_until), f"fromUnixTimestamp64Nano({until})"
    )


def size(path):
    return sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names)


def clickhouse(ask):
    path = os.path.join(work, "clickhouse")
    fresh = not os.path.exists(path)
    chdb = clickhouse_session(path)
    if fresh:
        began = time.monotonic()
        texts = {"view", "node", "protocol", "client_kind", "client_namespace", "client_name", "server_kind",
                 "server_namespace", "server_name", "process", "container_id", "failure", "client_address",
                 "server_address"}
        columns = ", ".join(f"toLowCardinality({name}) AS {name}" if name in texts else name for name in COLUMNS)
        chdb.query("CREATE DATABASE IF NOT EXISTS bench")
        chdb.query(
            f"CREATE TABLE bench.history ENGINE = MergeTree ORDER BY (edge, connection, to_time) AS SELECT {columns} "
            f"FROM file('{segments}', Parquet) SETTINGS max_threads = 2, max_insert_threads = 1"
        )
        chdb.query("OPTIMIZE TABLE bench.history FINAL")
        took = time.monotonic() - began
        held = chdb.query("SELECT sum(bytes_on_disk) FROM system.parts WHERE database = 'bench' AND active", "TSV")
        loaded("ClickHouse", took, int(str(held)))
    ask(
        "ClickHouse, MergeTree",
        lambda since: clickhouse_rows(
            chdb.query(clickhouse_question("bench.history", since) + " SETTINGS max_threads = 2", "JSONEachRow")
        ),
    )


def clickhouse_files(ask):
    chdb = clickhouse_session(os.path.join(work, "clickhouse-files"))
    table = f"file('{segments}', Parquet)"
    ask(
        "ClickHouse on weir's files",
        lambda since: clickhouse_rows(
            chdb.query(clickhouse_question(table, since) + " SETTINGS max_threads = 2", "JSONEachRow")
        ),
    )


def loaded(name, seconds, bytes_held):
    print(f"{name}: loaded {rows} rows in {seconds:.0f} s, {rows / seconds:.0f} rows/s, {bytes_held / rows:.1f} B a row", flush=True)


to_until = until
bad = 0


def ask(name, answer):
    global bad
    told = []
    for hours in (1, 24, 168):
        took = []
        for _ in range(5):
            began = time.monotonic()
            found = answer(until - hours * HOUR)
            took.append(1000 * (time.monotonic() - began))
        if sorted(int(row[6]) for row in found) != expected[str(hours)]:
            bad += 1
            print(f"{name} finds other edges in {hours} h than weir")
        told.append(f"{hours} h {statistics.median(took):.0f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"{name}, top 20 of {', '.join(told)}; at most {peak} MiB (loading included)", flush=True)


known = {"sqlite": sqlite, "duckdb": duckdb, "clickhouse": clickhouse, "duckdb-files": duckdb_files,
         "clickhouse-files": clickhouse_files}
known[engine](ask)
sys.exit(1 if bad else 0)
