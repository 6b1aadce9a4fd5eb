"""The hub: publishes tasks, takes each client's update once, fuses, and hands out the model.

`hub` holds the operations, `tables` and `store` what they keep, `access` who may, `worker` fuses, `app` is the HTTP
side and `pages` the coordinator's view. Everything but `worker` answers requests; any number of processes of each
may run beside each other on one database and one store.
"""
