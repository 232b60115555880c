-- Kafka records as they are: key and value stay raw bytes, so that one poison record can be told from ten thousand good ones.
CREATE TEMPORARY TABLE records (
  `key`       BYTES,
  `value`     BYTES,
  topic       STRING NOT NULL METADATA VIRTUAL,
  `partition` INT NOT NULL METADATA VIRTUAL,
  `offset`    BIGINT NOT NULL METADATA VIRTUAL,
  `timestamp` TIMESTAMP_LTZ(3) NOT NULL METADATA VIRTUAL,
  headers     MAP<STRING, BYTES> NOT NULL METADATA VIRTUAL
) WITH (
  'connector' = 'kafka',
  'key.format' = 'raw',
  'key.fields' = 'key',
  'value.format' = 'raw',
  'value.fields-include' = 'EXCEPT_KEY',
  'scan.startup.mode' = 'group-offsets',
  ${options}
);
