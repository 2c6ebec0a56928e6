"""Independent clients against the counterpart: intuit-oauth and python-quickbooks, as their users use them.

usage: clients.py COUNTERPART_PROGRAM
"""
import os
import re
import subprocess
import sys
from decimal import Decimal
from urllib.parse import parse_qs, urlparse

# The counterpart is on this machine, without a certificate.
os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests
from intuitlib.client import AuthClient
from intuitlib.enums import Scopes
from intuitlib.exceptions import AuthClientError
from quickbooks import QuickBooks
from quickbooks.batch import batch_create
from quickbooks.cdc import change_data_capture
from quickbooks.exceptions import QuickbooksException
from quickbooks.objects.account import Account
from quickbooks.objects.base import EmailAddress, LinkedTxn, Ref
from quickbooks.objects.bill import Bill
from quickbooks.objects.billpayment import BillPayment, BillPaymentLine, CheckPayment
from quickbooks.objects.detailline import AccountBasedExpenseLine, AccountBasedExpenseLineDetail
from quickbooks.objects.vendor import Vendor

program = subprocess.Popen([sys.argv[1], "--port", "0", "--no-limits"], stdout=subprocess.PIPE, text=True)
try:
    ready = program.stdout.readline()
    base, client, secret = re.match(r"ready (\S+) \(client (\S+), secret (\S+),", ready).groups()

    # Consent, tokens, refresh, revocation: intuit-oauth.
    redirect = "http://localhost/callback"
    auth = AuthClient(client, secret, redirect, f"{base}/.well-known/openid_configuration")
    url = auth.get_authorization_url([Scopes.ACCOUNTING])
    assert url.startswith(f"{base}/connect/oauth2"), url
    back = requests.get(url, allow_redirects=False, timeout=5)
    answer = {name: values[0] for name, values in parse_qs(urlparse(back.headers["location"]).query).items()}
    assert answer["state"] == auth.state_token
    auth.get_bearer_token(answer["code"], realm_id=answer["realmId"])
    assert auth.expires_in == 3600 and auth.access_token and auth.refresh_token
    try:
        auth.get_bearer_token(answer["code"], realm_id=answer["realmId"])
        raise AssertionError("a code is good once")
    except AuthClientError as refused:
        assert refused.status_code == 400, refused.status_code
    auth.refresh()

    # Books: python-quickbooks.
    QuickBooks.sandbox_api_url_v3 = f"{base}/v3"
    auth.environment = "sandbox"
    qb = QuickBooks(auth_client=auth, refresh_token=auth.refresh_token, company_id=answer["realmId"], minorversion=75)
    accounts = {account.Name: account for account in Account.all(qb=qb)}
    expense = accounts["Commissions"]

    vendor = Vendor()
    vendor.DisplayName = "O'Neil & Söhne"
    vendor.PrimaryEmailAddr = EmailAddress()
    vendor.PrimaryEmailAddr.Address = "pay@partner.example"
    vendor = vendor.save(qb=qb)
    assert vendor.Id and vendor.SyncToken == "0"
    try:
        again = Vendor()
        again.DisplayName = "o'neil & söhne"
        again.save(qb=qb)
        raise AssertionError("names are unique")
    except QuickbooksException as refused:
        assert str(refused.error_code) == "6240", refused.error_code
    assert [found.Id for found in Vendor.filter(DisplayName="O'Neil & Söhne", qb=qb)] == [vendor.Id]
    assert Vendor.count(qb=qb) == 1

    def bill(number, amount):
        line = AccountBasedExpenseLine()
        line.Amount = amount
        line.AccountBasedExpenseLineDetail = AccountBasedExpenseLineDetail()
        line.AccountBasedExpenseLineDetail.AccountRef = expense.to_ref()
        new = Bill()
        new.DocNumber = number
        new.VendorRef = vendor.to_ref()
        new.Line.append(line)
        return new

    first = bill("PP-1", 118.10)
    first = first.save(qb=qb)
    assert Decimal(str(first.TotalAmt)) == Decimal("118.1") == Decimal(str(first.Balance)), first.to_json()
    try:
        bill("PP-1", 1).save(qb=qb)
        raise AssertionError("a document number stands for one Bill")
    except QuickbooksException as refused:
        assert str(refused.error_code) == "6140" and f"TxnId={first.Id}" in refused.detail, refused.detail

    def pay(amount):
        payment = BillPayment()
        payment.PayType = "Check"
        payment.TotalAmt = amount
        payment.VendorRef = vendor.to_ref()
        payment.CheckPayment = CheckPayment()
        payment.CheckPayment.BankAccountRef = accounts["Checking"].to_ref()
        line = BillPaymentLine()
        line.Amount = amount
        linked = LinkedTxn()
        linked.TxnId, linked.TxnType = first.Id, "Bill"
        line.LinkedTxn.append(linked)
        payment.Line.append(line)
        return payment.save(qb=qb)

    open_of = lambda: Decimal(str(Bill.get(int(first.Id), qb=qb).Balance))
    part = pay(18.10)
    assert open_of() == 100
    rest = pay(100)
    assert open_of() == 0 and len(Bill.get(int(first.Id), qb=qb).LinkedTxn) == 2
    BillPayment.get(int(rest.Id), qb=qb).void(qb=qb)
    assert open_of() == 100
    voided = BillPayment.get(int(rest.Id), qb=qb)
    assert voided.TotalAmt == 0 and voided.Line == [] and voided.PrivateNote.startswith("Voided"), voided.to_json()
    BillPayment.get(int(part.Id), qb=qb).delete(qb=qb)
    assert open_of() == Decimal("118.1")

    made = batch_create([bill(f"PP-{n}", n) for n in range(2, 40)], qb=qb)
    assert len(made.successes) == 38 and not made.faults, made.faults
    changed = change_data_capture([Bill, BillPayment], first.MetaData["CreateTime"], qb=qb)
    assert len(changed.Bill) == 39, len(changed.Bill)
    Bill.get(int(made.successes[0].Id), qb=qb).delete(qb=qb)
    assert Bill.count(qb=qb) == 38

    # A stale token is refused; a revoked connection is closed.
    stale = Vendor.get(int(vendor.Id), qb=qb)
    fresh = Vendor.get(int(vendor.Id), qb=qb)
    fresh.Notes = "changed"
    fresh.save(qb=qb)
    try:
        stale.save(qb=qb)
        raise AssertionError("a stale SyncToken is refused")
    except QuickbooksException as refused:
        assert str(refused.error_code) == "5010", refused.error_code
    auth.revoke(token=auth.refresh_token)
    print("intuit-oauth and python-quickbooks work against the counterpart")
finally:
    program.kill()
    program.wait()
