-- Which versions each instance was ever sent, so that revoking it names them also once nothing is
-- delivered any more. Of what is delivered now it is known.

INSERT INTO registry
    SELECT 'sent', key, json_object('versions', json_extract(value, '$.versions'))
    FROM registry WHERE kind = 'delivery';
