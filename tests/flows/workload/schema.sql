-- The tables of the random workload. What is TOASTed is stored EXTERNAL, so that a long value is never compressed into the row.
CREATE TABLE accounts (
    id bigint PRIMARY KEY, owner text NOT NULL, balance numeric(12,2), opened timestamptz NOT NULL, note varchar(40)
);
CREATE TABLE order_lines (
    order_id bigint, line_no smallint, sku text NOT NULL, qty int NOT NULL, price numeric(10,2),
    PRIMARY KEY (order_id, line_no)
);
CREATE TABLE documents (
    id uuid PRIMARY KEY, title text, body text, words text[], meta jsonb, revision int NOT NULL DEFAULT 0
);
ALTER TABLE documents ALTER body SET STORAGE EXTERNAL, ALTER words SET STORAGE EXTERNAL, ALTER meta SET STORAGE EXTERNAL;
CREATE TABLE ledgers (code text PRIMARY KEY, amount numeric(14,4), memo text);
ALTER TABLE ledgers ALTER memo SET STORAGE EXTERNAL;
ALTER TABLE ledgers REPLICA IDENTITY FULL;
CREATE TABLE readings (id int, day date, v double precision, remark text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE readings_2024 PARTITION OF readings FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE readings_2025 PARTITION OF readings FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
CREATE TABLE totals (
    id int PRIMARY KEY, a int NOT NULL, b int NOT NULL, total int GENERATED ALWAYS AS (a + b) STORED, label text
);
